import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { Browser, BrowserContextOptions, Locator, Page } from 'playwright-core';
import { parse } from 'yaml';
import { ask } from '../../bench/ask.ts';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { makeProgram } from '../../model/task.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { ROOT } from '../../scripts/processes.ts';
import { until } from '../../scripts/until.ts';
import { startGateway } from '../gateway/harness.ts';
import { folder, newKey } from '../gateway-keys/harness.ts';
import { MAX_TOKENS, PATIENCE } from '../system/harness.ts';
import { launchBrowser, type Misdeeds, NO_BROWSER, watchPage } from './browser.ts';

/** The machine may be busy with other tests; a run takes some seconds. */
const PATIENCE_MS = 90_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

describe('the live page in a browser', { skip: NO_BROWSER }, () => {
  let cluster: Cluster;
  let browser: Browser;
  const misdeeds: Misdeeds[] = [];

  before(async () => {
    const quiet = { log_level: 'warn' };
    // In lockstep what is evicted does not depend on how busy the machine is.
    const engine = { ...quiet, lockstep: true, lockstep_timeout_ms: 20_000 };
    // as shipped; without them there is no profile that only watches
    const { profiles } = parse(readFileSync(join(ROOT, 'crystal-kv.yaml'), 'utf8')) as { profiles: object };
    cluster = await startCluster({
      config: { engine, gateway: quiet, policy_service: quiet, profiles },
      readyMs: PATIENCE_MS,
    });
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    await cluster?.close();
  });

  async function open(options: BrowserContextOptions = {}): Promise<Page> {
    const page = await browser.newPage(options);
    page.setDefaultTimeout(PATIENCE_MS);
    misdeeds.push(await watchPage(page, cluster.gatewayUrl));
    await page.goto(`${cluster.gatewayUrl}/ui`);
    await page.getByRole('button', { name: 'Run it live' }).isEnabled();
    await page.locator('#example option').nth(1).waitFor({ state: 'attached' });
    return page;
  }

  const setSpeed = (page: Page, value: string) => page.locator('#speed').evaluate(SET_VALUE, value);
  const setBudget = (page: Page, value: string) => page.locator('#budget').fill(value);
  const row = (page: Page, title: string) => page.locator('#map .row', { has: page.getByText(title, { exact: true }) });
  const finished = (page: Page) => page.locator('#verdict:not(:empty)').waitFor();

  /** Blocks as the gateway's own interface tells them, for a run alone. */
  async function runAlone(page: Page, profile: string, budget: string | undefined): Promise<string> {
    if (await page.locator('#choices').isHidden()) await page.getByRole('button', { name: 'Options' }).click();
    await page.getByLabel('Policy').selectOption(profile);
    if (budget !== undefined) await setBudget(page, budget);
    await page.getByRole('button', { name: 'Run without the comparison' }).click();
    await finished(page);
    return (
      (await row(page, budget === undefined ? profile : `${profile}, ${budget} tokens`)
        .locator('.row-facts')
        .textContent()) ?? ''
    );
  }

  test('offers what the running system has, and says what is to be seen', async () => {
    const page = await open();
    assert.equal(await page.title(), 'Crystal-KV: same answers, less memory');
    assert.match((await page.locator('h1').textContent()) ?? '', /one GPU serves more people/);
    const profiles = await page.locator('#profile option').allTextContents();
    assert.ok(profiles.includes('crystal') && profiles.includes('full'), profiles.join());
    assert.equal(await page.locator('#profile').inputValue(), 'crystal');
    assert.deepEqual(await page.locator('#profile optgroup').first().locator('option').allTextContents(), [
      ...['crystal', 'default'],
    ]);
    assert.match(await page.locator('#prompt').inputValue(), /^L24 /);
    assert.ok(await page.locator('#notice').isHidden());
    await page.close();
  });

  test('shows a request beside a full cache: the map grows, blocks are forgotten, answers are compared', async () => {
    const page = await open();
    await setSpeed(page, '400');
    await page.getByRole('button', { name: 'Run it live' }).click();
    const [full, kept] = [row(page, 'everything kept'), row(page, 'crystal, 320 tokens')];
    await kept.locator('.cell').nth(15).waitFor();
    const early = await kept.locator('.cell').count();
    await kept
      .locator('.cell')
      .nth(early + 10)
      .waitFor();
    await kept.locator('.cell.hole').first().waitFor();
    await finished(page);

    assert.equal(await full.locator('.cell.hole').count(), 0);
    const ranked = (of: Locator) => of.locator('.v0, .v1, .v2, .v3, .v4').count();
    assert.equal(await ranked(full), 0, 'where nothing goes, nothing goes first');
    assert.ok((await ranked(kept)) > 0 && (await full.locator('.cell.unranked').count()) > 0);
    const [cells, holes] = [await kept.locator('.cell').count(), await kept.locator('.cell.hole').count()];
    assert.equal(await full.locator('.cell').count(), cells, 'the same program takes as many blocks');
    const facts = (await kept.locator('.row-facts').textContent()) ?? '';
    assert.match(
      facts,
      new RegExp(`^Ended, policy crystal: ${cells - holes} of ${cells} blocks in memory, ${holes} given`),
    );
    // Prompt 132 tokens and budget 320, in whole blocks of 16.
    assert.equal(cells - holes, 9 + 20);
    assert.ok((await kept.locator('.cell.prompt').count()) >= 8);
    assert.ok((await kept.locator('.cell.newest').count()) >= 4);
    assert.ok((await kept.locator('.cell.pick').count()) > 0, `trial answers read something: ${facts}`);
    assert.ok((await kept.locator('.cell.answers').count()) > 0);

    const readings = page.locator('.reading');
    assert.equal(await readings.count(), 2);
    assert.equal(await readings.nth(1).locator('.part.right').count(), 3, 'the full cache is right');
    assert.equal(await readings.nth(0).locator('.part.right').count(), 3, 'and so is what is recommended');
    assert.equal(await readings.nth(1).locator('.i0, .i1, .i2, .i3, .i4, .i5, .i6').count(), 0);
    const inks = await Promise.all([0, 2, 4, 6].map((ink) => readings.nth(0).locator(`.i${ink}`).count()));
    assert.ok(
      inks.some((count, ink) => ink > 0 && count > 0),
      `some tokens are held by some heads: ${inks}`,
    );
    const less = Math.round((100 * holes) / cells);
    const headline = ((await page.locator('#headline').textContent()) ?? '').replaceAll('\u00a0', ' ');
    assert.equal(headline, `Same answer, ${less} % less memory`);
    const verdict = ((await page.locator('#verdict').textContent()) ?? '').replaceAll('\u00a0', ' ');
    assert.match(verdict, new RegExp(`^${headline}\\. [\\d.]+ MiB of memory instead of [\\d.]+ MiB\\. Room for`));
    assert.match(
      (await page.locator('#heads').getAttribute('aria-label')) ?? '',
      /^Heads: 6 heads in all layers; together they hold \d+ % of what \d+ tokens would take\.$/,
    );
    assert.match(
      (await page.locator('#memory-chart').getAttribute('aria-label')) ?? '',
      new RegExp(`after \\d+ tokens ${cells - holes} blocks are in memory where a full cache holds ${cells}`),
    );
    assert.match((await page.locator('#figure-pool').textContent()) ?? '', /of 1024 blocks/);
    await page.close();
  });

  test('what was seen can be looked at again, at any moment', async () => {
    const page = await open();
    await setSpeed(page, '0');
    await runAlone(page, 'crystal-evict', '160');
    const cells = row(page, 'crystal-evict, 160 tokens').locator('.cell');
    const all = await cells.count();
    const slider = page.getByLabel('Moment, in tokens written');
    await slider.fill('200');
    const drawn = (holds: (count: number) => boolean) =>
      until(async () => holds(await cells.count()), 'the cells of that moment', PATIENCE);
    await drawn((count) => count < all);
    assert.equal(await page.locator('#time-text').textContent(), '200 tokens');
    await slider.press('End');
    await drawn((count) => count === all);
    await page.getByRole('button', { name: 'Replay' }).click();
    await finished(page);
    await page.close();
  });

  test('policy and budget hold for the next request', async () => {
    const page = await open();
    await setSpeed(page, '0');
    const window = await runAlone(page, 'window', '128');
    assert.match(window, /^Ended, policy window: 17 of 6[12] blocks in memory, 4[45] given back/);
    const holes = await row(page, 'window, 128 tokens').locator('.cell.hole').first().getAttribute('aria-label');
    assert.equal(holes, 'block 9, given back', 'a window forgets the oldest');
    assert.match(
      await runAlone(page, 'full', undefined),
      /^Ended, policy full: \d+ of \d+ blocks in memory, nothing given back/,
    );
    await page.close();
  });

  test('a policy that only watches says what it would have saved, and its price in attention', async () => {
    const page = await open();
    await setSpeed(page, '0');
    assert.match(
      await runAlone(page, 'shadow', '160'),
      /^Ended, policy crystal: (\d+) of \1 blocks in memory, nothing/,
    );
    const text = async (id: string) => ((await page.locator(id).textContent()) ?? '').replaceAll('\u00a0', ' ');
    const [, saved] = /^It would have saved (\d+) % of the memory$/.exec(await text('#headline')) ?? [];
    assert.ok(Number(saved) > 30, await text('#headline'));
    const price = /^This policy lets nothing go\. What it would have let go got (\d+) % of the attention\.$/;
    const [, missed] = price.exec(await text('#detail')) ?? [];
    assert.ok(Number(missed) > 0 && Number(missed) < 50, await text('#detail'));
    await page.close();
  });

  test('is used with the keyboard alone, and tells each block in words', async () => {
    const page = await open();
    await setSpeed(page, '0');
    await page.getByRole('button', { name: 'Run it live' }).focus();
    await page.keyboard.press('Enter');
    await finished(page);
    await row(page, 'everything kept').locator('.cell[tabindex="0"]').focus();
    const focused = () => page.evaluate('document.activeElement.getAttribute("aria-label")');
    assert.equal(await focused(), 'block 0, question');
    await page.keyboard.press('End');
    assert.match(String(await focused()), /answer, newest$/);
    await page.keyboard.press('Home');
    await page.keyboard.press('PageDown');
    assert.equal(await focused(), 'block 10, kept');
    await page.keyboard.press('ArrowDown');
    assert.match(String(await focused()), /^block 10, /);
    assert.match((await page.locator('#block h3').textContent()) ?? '', /^Block 10 of crystal, 320 tokens$/);
    await page.keyboard.press('ArrowLeft');
    const facts = (await page.locator('#block').textContent()) ?? '';
    assert.match(
      facts,
      /^Block 9 of crystal.*tokens 144 to 159 · (kept: \d+ of \d+|its memory was given back).*Its text:/,
    );
    // The prompt has 132 tokens: block 9 holds the 13th to the 28th of the reasoning.
    assert.match((await page.locator('#block .text').textContent()) ?? '', /hmm wasp is 4 plus 3/);
    assert.ok((await page.locator('.managed .looked-at').count()) > 8, 'it is marked in the thought, too');
    await page.getByText('This row in words').nth(1).press('Enter');
    await page.getByText(/^blocks 0 to 8 question; .*newest\./).waitFor();
    await page.close();
  });

  test('shows requests from elsewhere without their text, and for a while after their end', async () => {
    const page = await open();
    await ask(cluster.gatewayUrl, makeProgram(11, 24), { maxTokens: MAX_TOKENS, cache: { profile: 'crystal' } });
    const foreign = page.locator('#map .row[data-over="true"]', { hasText: 'from elsewhere (crystal)' });
    await foreign.waitFor();
    await foreign.locator('.cell').nth(10).hover();
    assert.match((await page.locator('#block').textContent()) ?? '', /does not know the text/);
    await foreign.waitFor({ state: 'detached' });
    await page.close();
  });

  test('plays a recording until somebody starts a run, and says so', async () => {
    const page = await open();
    const moment = async () => Number.parseInt((await page.locator('#time-text').textContent()) ?? '', 10);
    await until(async () => (await moment()) > 20, 'the recording plays', PATIENCE);
    assert.match((await page.locator('#source').textContent()) ?? '', /^A recording: SmolLM2-135M/);
    assert.notEqual(await page.locator('.managed .text').textContent(), '');
    assert.ok(await page.locator('#speed').isHidden(), 'it has a pace of its own');
    await page.close();
    const still = await open({ reducedMotion: 'reduce' });
    await still.locator('#headline', { hasText: /^Same answer, \d+.% less memory$/ }).waitFor();
    assert.equal(await still.getByRole('button', { name: 'Replay' }).isVisible(), true);
    await setSpeed(still, '0');
    await still.getByRole('button', { name: 'Run it live' }).click();
    await finished(still);
    assert.ok(await still.locator('#source').isHidden());
    assert.ok(await still.locator('#speed').isVisible());
    await still.close();
  });

  test('shows what decides on the first screen', async () => {
    for (const viewport of [
      { width: 1440, height: 900 },
      { width: 390, height: 844 },
    ]) {
      const page = await open({ viewport });
      await setSpeed(page, '0');
      // on a telephone the options alone fill a screen
      if (viewport.width > 1000) await page.getByRole('button', { name: 'Options' }).click();
      await page.getByRole('button', { name: 'Run it live' }).click();
      await finished(page);
      for (const part of [
        '#headline',
        '#detail',
        '#memory-chart',
        '.reading >> nth=0 >> .answer',
        '.reading >> nth=1 >> .answer',
      ]) {
        const box = await page.locator(part).boundingBox();
        assert.ok(box !== null && box.y + box.height <= viewport.height, `${part}: ${JSON.stringify(box)}`);
      }
      await page.close();
    }
  });

  test('says on the first screen why a request failed', async () => {
    const page = await open({ viewport: { width: 390, height: 844 } });
    await page.getByRole('button', { name: 'Options' }).click();
    await page.getByLabel('Prompt').fill('What is the capital of France?');
    await page.getByRole('button', { name: 'Run it live' }).click();
    await finished(page);
    assert.equal(await page.locator('#headline').textContent(), 'It failed');
    const box = await page.locator('#detail', { hasText: '400' }).boundingBox();
    assert.ok(box !== null && box.y + box.height < 844);
    await page.close();
    // The browser itself writes the refusal to the console.
    const last = misdeeds.at(-1);
    if (last !== undefined) last.console = last.console.filter((text) => !text.includes('400 (Bad Request)'));
  });

  test('switches off what does nothing', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Options' }).click();
    const budget = page.locator('#budget');
    assert.ok(await budget.isEnabled());
    await page.getByLabel('Policy').selectOption('full');
    assert.ok(await budget.isDisabled());
    const sentences = [];
    for (const profile of ['crystal', 'default', 'crystal-evict', 'window']) {
      await page.getByLabel('Policy').selectOption(profile);
      sentences.push(await page.locator('#profile-help').textContent());
    }
    assert.equal(new Set(sentences).size, 4, sentences.join());
    await page.close();
  });

  test('passes an accessibility check in light and dark, and fits a telephone', async () => {
    for (const options of [
      { colorScheme: 'light', viewport: { width: 1220, height: 900 } },
      { colorScheme: 'dark', viewport: { width: 390, height: 800 }, reducedMotion: 'reduce' },
    ] as const) {
      const page = await open(options);
      await setSpeed(page, '0');
      await page.getByRole('button', { name: 'Run it live' }).click();
      await finished(page);
      await page.evaluate(AXE);
      const { violations } = (await page.evaluate('axe.run()')) as { violations: Violation[] };
      const found = violations.map(
        ({ id, nodes }) =>
          `${id}: ${nodes
            .map(({ html }) => html)
            .slice(0, 3)
            .join(' ')}`,
      );
      assert.deepEqual(found, []);
      const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth');
      assert.ok(Number(overflow) <= 0, `${overflow} px too wide`);
      await page.close();
    }
  });

  test('asks for an API key where the gateway has them, and works with it', async (t) => {
    const key = newKey('viewer');
    const file = join(folder(t), 'keys.json');
    await createFileStore(file).add(key.entry);
    const backends = [{ url: cluster.engineUrl, policyAddress: cluster.policyAddress }];
    const { gateway } = await startGateway({ backends, keys: { store: 'file', file } });
    t.after(() => gateway.close());
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const { console, foreign } = await watchPage(page, gateway.url);
    await page.goto(`${gateway.url}/ui`);
    await page.getByLabel('This gateway requires an API key').fill(key.secret);
    await page.getByRole('button', { name: 'Use it' }).click();
    await setSpeed(page, '0');
    assert.match(await runAlone(page, 'window', '128'), /^Ended, policy window: 17 of 6[12] blocks in memory/);
    await page.close();
    assert.deepEqual(foreign, []);
    const others = console.filter((text) => !text.includes('401'));
    assert.deepEqual(others, [], 'nothing but the refusals before the key');
  });

  test('says when the policy service is gone, and goes on when it is back', async () => {
    const page = await open();
    const notice = page.locator('#notice', { hasText: 'The policy service cannot be reached' });
    await cluster.part('policy-service').stop();
    await notice.waitFor();
    await cluster.start('policy-service');
    await cluster.attached();
    await notice.waitFor({ state: 'hidden' });
    await page.close();
  });

  test('no page logged an error, broke its security policy or asked another host for anything', () => {
    assert.ok(misdeeds.length >= 8);
    // While the policy service was away nothing failed either: the gateway answers for it.
    assert.deepEqual(
      misdeeds.flatMap(({ console, foreign }) => [...console, ...foreign]),
      [],
    );
  });
});

describe('the live page in a browser, on a busy machine and outside lockstep', { skip: NO_BROWSER }, () => {
  test('what it recommends gives the same answer with half of the memory', async (t) => {
    const quiet = { log_level: 'warn' };
    const config = { engine: quiet, gateway: quiet, policy_service: quiet };
    const cluster = await startCluster({ config, readyMs: PATIENCE_MS });
    t.after(() => cluster.close());
    const busy = Array.from({ length: 2 }, () => new Worker('for (;;) Math.random();', { eval: true }));
    t.after(() => Promise.all(busy.map((worker) => worker.terminate())));
    const browser = await launchBrowser();
    t.after(() => browser.close());
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(cluster.gatewayUrl);
    await page.getByRole('button', { name: 'Run it live' }).click();
    await page.locator('#verdict:not(:empty)').waitFor();
    const headline = ((await page.locator('#headline').textContent()) ?? '').replaceAll('\u00a0', ' ');
    assert.match(headline, /^Same answer, [45]\d % less memory$/);
  });
});

interface Violation {
  id: string;
  nodes: { html: string }[];
}

/** Runs in the page; the playback controls may still be hidden. */
const SET_VALUE = (select: unknown, value: string) => {
  (select as { value: string }).value = value;
};

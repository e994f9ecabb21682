import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { ask } from '../../bench/ask.ts';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { makeProgram } from '../../model/task.ts';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
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
    cluster = await startCluster({
      config: { engine, gateway: quiet, policy_service: quiet },
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
    await page.getByRole('button', { name: 'Compare with full cache' }).isEnabled();
    await page.locator('#example option').nth(1).waitFor({ state: 'attached' });
    return page;
  }

  const setSpeed = (page: Page, value: string) => page.locator('#speed').evaluate(SET_VALUE, value);
  const setBudget = (page: Page, value: string) => page.locator('#budget').fill(value);
  const row = (page: Page, title: string) => page.locator('#map .row', { has: page.getByText(title, { exact: true }) });
  const finished = (page: Page) => page.locator('#verdict:not(:empty)').waitFor();

  /** Blocks as the gateway's own interface tells them, for a run alone. */
  async function runAlone(page: Page, profile: string, budget: string): Promise<string> {
    await page.getByLabel('Policy').selectOption(profile);
    await setBudget(page, budget);
    await page.getByRole('button', { name: 'Run alone' }).click();
    await finished(page);
    return (await row(page, `${profile}, ${budget} tokens`).locator('.row-facts').textContent()) ?? '';
  }

  test('offers what the running system has, and says what is to be seen', async () => {
    const page = await open();
    assert.equal(await page.title(), 'Crystal-KV: what a model remembers');
    assert.match((await page.locator('.lead').textContent()) ?? '', /block of 16 tokens/);
    const profiles = await page.locator('#profile option').allTextContents();
    assert.ok(profiles.includes('crystal') && profiles.includes('full'), profiles.join());
    assert.equal(await page.locator('#profile').inputValue(), 'crystal-evict');
    assert.match(await page.locator('#prompt').inputValue(), /^L24 /);
    assert.ok(await page.locator('#notice').isHidden());
    await page.close();
  });

  test('shows a request beside a full cache: the map grows, blocks are forgotten, answers are compared', async () => {
    const page = await open();
    await setSpeed(page, '400');
    await page.getByRole('button', { name: 'Compare with full cache' }).click();
    const [full, kept] = [row(page, 'full cache'), row(page, 'crystal-evict, 320 tokens')];
    await kept.locator('.cell').nth(15).waitFor();
    const early = await kept.locator('.cell').count();
    await kept
      .locator('.cell')
      .nth(early + 10)
      .waitFor();
    await kept.locator('.cell.hole').first().waitFor();
    await finished(page);

    assert.equal(await full.locator('.cell.hole').count(), 0);
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
    assert.equal(await readings.nth(0).locator('.part.right').count(), 3, 'the full cache is right');
    assert.equal(await readings.nth(1).locator('.part').count(), 3);
    assert.equal(await readings.nth(0).locator('.thought.gone').count(), 0);
    assert.equal(await readings.nth(1).locator('.thought.gone').count(), holes);
    const answers = await page.locator('.answer').allTextContents();
    const verdict = (await page.locator('#verdict').textContent()) ?? '';
    const same = answers[0] === answers[1];
    assert.ok(verdict.startsWith(same ? 'The same answer as' : 'Not the same answer as'), verdict);
    assert.match(verdict, new RegExp(`with ${cells - holes} blocks in memory at the end instead of ${cells}`));
    assert.match(
      (await page.locator('#memory-chart').getAttribute('aria-label')) ?? '',
      new RegExp(`after \\d+ tokens ${cells - holes} blocks are in memory where a full cache holds ${cells}`),
    );
    assert.match((await page.locator('#figure-pool').textContent()) ?? '', /of 1024 blocks/);
    assert.ok((await page.locator('canvas').count()) === 2);
    await page.close();
  });

  test('what was seen can be looked at again, at any moment', async () => {
    const page = await open();
    await setSpeed(page, '0');
    await runAlone(page, 'crystal-evict', '160');
    const cells = row(page, 'crystal-evict, 160 tokens').locator('.cell');
    const all = await cells.count();
    const slider = page.getByLabel('Moment, in tokens generated');
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
    assert.equal(holes, 'block 9, forgotten', 'a window forgets the oldest');
    assert.match(
      await runAlone(page, 'full', '128'),
      /^Ended, policy full: \d+ of \d+ blocks in memory, nothing forgotten/,
    );
    await page.close();
  });

  test('is used with the keyboard alone, and tells each block in words', async () => {
    const page = await open();
    await setSpeed(page, '0');
    await page.getByRole('button', { name: 'Compare with full cache' }).focus();
    await page.keyboard.press('Enter');
    await finished(page);
    await row(page, 'full cache').locator('.cell[tabindex="0"]').focus();
    const focused = () => page.evaluate('document.activeElement.getAttribute("aria-label")');
    assert.equal(await focused(), 'block 0, prompt');
    await page.keyboard.press('End');
    assert.match(String(await focused()), /answer, newest$/);
    await page.keyboard.press('Home');
    await page.keyboard.press('PageDown');
    assert.equal(await focused(), 'block 10, kept');
    await page.keyboard.press('ArrowDown');
    assert.match(String(await focused()), /^block 10, /);
    assert.match((await page.locator('#block h3').textContent()) ?? '', /^Block 10 of crystal-evict, 320 tokens$/);
    await page.keyboard.press('ArrowLeft');
    const facts = (await page.locator('#block').textContent()) ?? '';
    assert.match(facts, /^Block 9 of crystal-evict.*tokens 144 to 159 · (kept: \d+ of \d+|forgotten).*Its text:/);
    // The prompt has 132 tokens: block 9 holds the 13th to the 28th of the reasoning.
    assert.match((await page.locator('#block .text').textContent()) ?? '', /hmm wasp is 4 plus 3/);
    await page.getByText('This row in words').nth(1).press('Enter');
    await page.getByText(/^blocks 0 to 8 prompt; .*newest\./).waitFor();
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

  test('passes an accessibility check in light and dark, and fits a telephone', async () => {
    for (const options of [
      { colorScheme: 'light', viewport: { width: 1220, height: 900 } },
      { colorScheme: 'dark', viewport: { width: 390, height: 800 }, reducedMotion: 'reduce' },
    ] as const) {
      const page = await open(options);
      await setSpeed(page, '0');
      await page.getByRole('button', { name: 'Compare with full cache' }).click();
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

interface Violation {
  id: string;
  nodes: { html: string }[];
}

/** Runs in the page; the playback controls may still be hidden. */
const SET_VALUE = (select: unknown, value: string) => {
  (select as { value: string }).value = value;
};

/** Takes the pictures of the live page; see `--help`. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { launchBrowser } from '../test/ui/browser.ts';
import { startCluster } from './cluster.ts';
import { runCommandLine } from './command-line.ts';
import { ROOT } from './processes.ts';
import { until } from './until.ts';

const PATIENCE_MS = 240_000;
const MOST_BYTES = 120_000;
const WEBP = { format: 'webp', quality: 88 } as const;
/** Tokens of the recording, and of the run, that are shown in the pictures of the first screen and of a run. */
const MOMENT = { first: 300, running: 420 };
const SIZES = { desktop: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } };

await runCommandLine({
  name: 'screenshots',
  about: `Takes pictures of the live page: its first screen, a run, and its end, on a desktop and on a phone, light and dark. It
starts the system by itself, as make run does. It needs Chromium.`,
  options: {
    out: { type: 'string', default: 'docs/page', value: 'FOLDER', help: 'where to (default docs/page)' },
    url: { type: 'string', value: 'URL', help: 'gateway of a system that runs already' },
  },
  async run({ out, url }) {
    const folder = resolve(ROOT, out);
    mkdirSync(folder, { recursive: true });
    const quiet = { log_level: 'warn' };
    const config = { engine: quiet, gateway: quiet, policy_service: quiet };
    const cluster = url === undefined ? await startCluster({ config, readyMs: PATIENCE_MS }) : undefined;
    const browser = await launchBrowser();
    try {
      for (const size of ['desktop', 'phone'] as const)
        for (const colorScheme of ['light', 'dark'] as const)
          await takeThree(browser, `${url ?? cluster?.gatewayUrl}/ui`, { size, colorScheme, folder });
    } finally {
      await browser.close();
      await cluster?.close();
    }
  },
});

interface Look {
  size: keyof typeof SIZES;
  colorScheme: 'light' | 'dark';
  folder: string;
}

async function takeThree(browser: Browser, url: string, { size, colorScheme, folder }: Look): Promise<void> {
  const page = await browser.newPage({ colorScheme, viewport: SIZES[size] });
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(url);
  const save = (moment: string) => take(page, join(folder, `${size}-${colorScheme}-${moment}.webp`));
  await shown(page, MOMENT.first);
  await save('first');
  await page.getByRole('button', { name: 'Run it live' }).click();
  await shown(page, MOMENT.running);
  await save('running');
  await page.locator('#verdict:not(:empty)').waitFor();
  process.stdout.write(`${size} ${colorScheme}: ${await page.locator('#verdict').textContent()}\n`);
  // colours fade, and the thought is scrolled to its beginning
  await page.waitForTimeout(1_500);
  await save('done');
  await page.close();
}

/** Waits until so many tokens are shown. */
async function shown(page: Page, tokens: number): Promise<void> {
  const shows = async () => Number.parseInt((await page.locator('#time-text').textContent()) ?? '', 10) >= tokens;
  await until(shows, `${tokens} tokens are shown`, { ms: PATIENCE_MS, pollMs: 50 });
}

async function take(page: Page, path: string): Promise<void> {
  // Playwright itself writes no WebP, which is a third of a PNG here.
  const session = await page.context().newCDPSession(page);
  const { data } = await session.send('Page.captureScreenshot', WEBP);
  const picture = Buffer.from(data, 'base64');
  writeFileSync(path, picture);
  const size = picture.length;
  process.stdout.write(`${path}  ${size} bytes${size > MOST_BYTES ? `, which is above ${MOST_BYTES}` : ''}\n`);
  if (size > MOST_BYTES) process.exitCode = 1;
}

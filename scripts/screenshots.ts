/**
 * Takes the pictures of the live page for `docs/`, in light and dark, from a system that it starts itself: the map alone
 * (`crystal-map-*.png`) and the page down to it (`live-page-*.png`). It needs Chromium.
 */
import { mkdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { launchBrowser } from '../test/ui/browser.ts';
import { startCluster } from './cluster.ts';
import { ROOT } from './processes.ts';

const PATIENCE_MS = 240_000;
const MOST_BYTES = 300_000;
const { values } = parseArgs({ options: { out: { type: 'string', default: 'docs' } } });
const folder = resolve(ROOT, values.out);
mkdirSync(folder, { recursive: true });

const quiet = { log_level: 'warn' };
// In lockstep the pictures do not depend on how busy the machine is.
const engine = { ...quiet, lockstep: true, lockstep_timeout_ms: 20_000 };
const cluster = await startCluster({
  config: { engine, gateway: quiet, policy_service: quiet },
  readyMs: PATIENCE_MS,
});
const browser = await launchBrowser();
try {
  for (const colorScheme of ['light', 'dark'] as const) {
    const page = await browser.newPage({ colorScheme, viewport: { width: 1220, height: 900 } });
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(`${cluster.gatewayUrl}/ui`);
    await page.locator('#speed').evaluate((select) => {
      (select as unknown as { value: string }).value = '0';
    });
    await page.getByRole('button', { name: 'Compare with full cache' }).click();
    await page.locator('#verdict:not(:empty)').waitFor();
    process.stdout.write(`${colorScheme}: ${await page.locator('#verdict').textContent()}\n`);
    // The value that the first question asks for was written long ago.
    await page.locator('#map .row').nth(1).locator('.cell.kept.pick').first().hover();
    const map = page.locator('section', { has: page.locator('#map') });
    await save(`crystal-map-${colorScheme}.png`, (path) => map.screenshot({ path, animations: 'disabled' }));
    const box = await map.evaluate((element) => {
      const { bottom } = (
        element as unknown as { getBoundingClientRect(): { bottom: number } }
      ).getBoundingClientRect();
      return bottom + (globalThis as unknown as { scrollY: number }).scrollY;
    });
    const clip = { x: 0, y: 0, width: 1220, height: Math.ceil(box) + 16 };
    await save(`live-page-${colorScheme}.png`, (path) =>
      page.screenshot({ path, clip, fullPage: true, animations: 'disabled' }),
    );
    await page.close();
  }
} finally {
  await browser.close();
  await cluster.close();
}

async function save(name: string, take: (path: string) => Promise<unknown>): Promise<void> {
  const path = join(folder, name);
  await take(path);
  const { size } = statSync(path);
  process.stdout.write(`${path}  ${size} bytes${size > MOST_BYTES ? `, which is above ${MOST_BYTES}` : ''}\n`);
  if (size > MOST_BYTES) process.exitCode = 1;
}

/**
 * Takes the pictures of the live page that the README shows, `docs/live-page-light.png` and `-dark.png`, from a system
 * that it starts itself. It needs Chromium.
 */
import { mkdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { launchBrowser } from '../test/ui/browser.ts';
import { startCluster } from './cluster.ts';
import { ROOT } from './processes.ts';

const { values } = parseArgs({ options: { out: { type: 'string', default: 'docs' } } });
const folder = resolve(ROOT, values.out);
mkdirSync(folder, { recursive: true });

const quiet = { log_level: 'warn' };
const cluster = await startCluster({
  config: { engine: { ...quiet, lockstep: true, lockstep_timeout_ms: 20_000 }, gateway: quiet, policy_service: quiet },
});
const browser = await launchBrowser();
try {
  for (const [name, colorScheme, width] of [
    ['light', 'light', 1220],
    ['dark', 'dark', 1220],
    ['phone', 'light', 390],
  ] as const) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
    page.on('console', (message) => process.stderr.write(`${message.text()}\n`));
    page.on('pageerror', (error) => process.stderr.write(`${error}\n`));
    await page.goto(`${cluster.gatewayUrl}/ui`);
    await page.locator('#speed').evaluate((select) => {
      (select as unknown as { value: string }).value = '400';
    });
    await page.getByRole('button', { name: 'Run beside a full cache' }).click();
    await page.locator('#verdict').filter({ hasText: 'answer' }).waitFor({ timeout: 60_000 });
    process.stdout.write(`${name}: ${await page.locator('#verdict').textContent()}\n`);
    await page.locator('#map .row').nth(1).locator('.cell.v4').first().hover();
    const path = join(folder, `live-page-${name}.png`);
    await page.screenshot({ path, fullPage: true, animations: 'disabled' });
    process.stdout.write(`${path}  ${statSync(path).size} bytes\n`);
    await page.close();
  }
} finally {
  await browser.close();
  await cluster.close();
}

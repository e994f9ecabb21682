/** Every shell block of the README, run as a reader would run it, on the ports of a system that was just started. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { promisify } from 'node:util';
import { type Cluster, startCluster } from '../../scripts/cluster.ts';
import { ROOT } from '../../scripts/processes.ts';

const run = promisify(execFile);
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
/** Marked `sh`; blocks with placeholders are not. */
const blocks = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1]!);

suite('the shell blocks of the README', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ config: { engine: { log_level: 'warn' }, gateway: { log_level: 'warn' } } });
  });
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-readme-'));
  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    await cluster.close();
  });

  test('are there', () => assert.ok(blocks.length >= 2));

  for (const [i, block] of blocks.entries()) {
    test(`${i + 1}: ${block.split('\n')[0]}`, { timeout: 120_000 }, async () => {
      // What starts the system, or all tests, is run by tests of its own: here only whether make knows it.
      const script = block
        .replaceAll(/\bmake (?=[a-z])/g, 'make --dry-run --silent ')
        .replaceAll('localhost:8080', new URL(cluster.gatewayUrl).host)
        .replaceAll('localhost:8000', new URL(cluster.engineUrl).host);
      const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script], {
        cwd: ROOT,
        env: { ...process.env, CRYSTALKV_GATEWAY_KEYS_FILE: join(folder, 'keys.json') },
        maxBuffer: 1 << 26,
        timeout: 60_000,
      });
      assert.notEqual(stdout.trim(), '');
      assert.doesNotMatch(stdout, /"error"/);
    });
  }
});

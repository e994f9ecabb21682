import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from '../../common/config.ts';
import { checkPorts, readSettings } from '../../scripts/run-settings.ts';

const EMPTY = '/dev/null';

test('without settings the programs listen at their usual addresses and find each other', async () => {
  const { addresses, env } = await readSettings(EMPTY, {});
  assert.deepEqual(addresses, {
    engineUrl: 'http://127.0.0.1:8000',
    gatewayUrl: 'http://127.0.0.1:8080',
    policyAddress: '127.0.0.1:50051',
    policyMetricsUrl: 'http://127.0.0.1:9091',
  });
  assert.equal(env['CRYSTALKV_POLICY_ADDRESS'], '127.0.0.1:50051');
  assert.deepEqual(backendsOf(env), [{ url: 'http://127.0.0.1:8000', policyAddress: '127.0.0.1:50051' }]);
});

test('a changed port is passed on to those who need it', async () => {
  const { env } = await readSettings(EMPTY, {
    CRYSTALKV_ENGINE_PORT: '8001',
    CRYSTALKV_POLICY_SERVICE_PORT: '50052',
  });
  assert.deepEqual(backendsOf(env), [{ url: 'http://127.0.0.1:8001', policyAddress: '127.0.0.1:50052' }]);
  assert.equal(env['CRYSTALKV_POLICY_ADDRESS'], '127.0.0.1:50052');
});

test('backends and addresses that were set stay', async () => {
  const set = {
    CRYSTALKV_GATEWAY_BACKENDS: '["http://10.0.0.1:8000"]',
    CRYSTALKV_POLICY_ADDRESS: '10.0.0.2:50051',
  };
  const { env } = await readSettings(EMPTY, { ...set, CRYSTALKV_ENGINE_PORT: '8001' });
  assert.equal(env['CRYSTALKV_GATEWAY_BACKENDS'], set.CRYSTALKV_GATEWAY_BACKENDS);
  assert.equal(env['CRYSTALKV_POLICY_ADDRESS'], set.CRYSTALKV_POLICY_ADDRESS);
});

test('port 0 becomes a free port that all of them know', async () => {
  const { addresses, env } = await readSettings(EMPTY, { CRYSTALKV_ENGINE_PORT: '0' });
  const port = Number(new URL(addresses.engineUrl).port);
  assert.ok(port > 0);
  assert.equal(env['CRYSTALKV_ENGINE_PORT'], `${port}`);
  assert.deepEqual(backendsOf(env), [{ url: `http://127.0.0.1:${port}`, policyAddress: '127.0.0.1:50051' }]);
});

test('an address for the whole network is reached on this machine', async () => {
  const { addresses } = await readSettings(EMPTY, { CRYSTALKV_ENGINE_HOST: '0.0.0.0' });
  assert.equal(addresses.engineUrl, 'http://127.0.0.1:8000');
});

test('a wrong option is refused with its value and source', async () => {
  await assert.rejects(readSettings(EMPTY, { CRYSTALKV_GATEWAY_PORT: '70000' }), (error: unknown) => {
    assert.ok(error instanceof ConfigError);
    assert.match(error.message, /gateway\.port is 70000.*CRYSTALKV_GATEWAY_PORT/);
    return true;
  });
});

test('one port for two programs is refused', async () => {
  const { listeners } = await readSettings(EMPTY, {
    CRYSTALKV_ENGINE_PORT: '23456',
    CRYSTALKV_GATEWAY_PORT: '23456',
    CRYSTALKV_POLICY_SERVICE_PORT: '0',
    CRYSTALKV_POLICY_SERVICE_METRICS_PORT: '0',
  });
  await assert.rejects(checkPorts(listeners), /gateway\.port: port 23456 is wanted by engine\.port too/);
});

function backendsOf(env: NodeJS.ProcessEnv): unknown {
  return JSON.parse(env['CRYSTALKV_GATEWAY_BACKENDS'] ?? '');
}

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfigError, loadSection } from '../../common/config.ts';
import { gatewaySchema, profilesSchema } from '../../gateway/config.ts';

const load = (section: unknown, env: Record<string, string> = {}) =>
  loadSection('gateway', gatewaySchema, { gateway: section }, env);

describe('the section gateway', () => {
  it('has defaults for everything', () => {
    const config = load({});
    assert.deepEqual([config.host, config.port], ['127.0.0.1', 8080]);
    assert.deepEqual(config.backends, [{ url: 'http://127.0.0.1:8000' }]);
    assert.equal(config.body_limit_bytes, 64 * 1024 * 1024);
    assert.equal(config.metrics_port, undefined);
  });

  it('takes backends from the environment, as addresses or with a policy address', () => {
    const { backends } = load(
      {},
      { CRYSTALKV_GATEWAY_BACKENDS: '[http://h:1/, {url: http://h:2/base/, policyAddress: 127.0.0.1:50051}]' },
    );
    assert.deepEqual(backends, [{ url: 'http://h:1' }, { url: 'http://h:2/base', policyAddress: '127.0.0.1:50051' }]);
  });

  it('takes nested options from the environment', () => {
    assert.equal(load({}, { CRYSTALKV_GATEWAY_TIMEOUTS_CONNECT_MS: '250' }).timeouts.connect_ms, 250);
    assert.equal(load({}, { CRYSTALKV_GATEWAY_DRAIN_MS: '0' }).drain_ms, 0);
  });

  for (const [section, message] of [
    [{ port: 70_000 }, /gateway\.port is 70000: .*65535/],
    [{ backends: [] }, /gateway\.backends is \[\]: must name at least one backend/],
    [{ backends: [{ url: 1 }] }, /gateway\.backends\.0\.url is 1: must be an http or https address/],
    [{ backends: [{ url: 'http://h', wieght: 1 }] }, /gateway\.backends\.0 is .*wieght/],
    [{ backends: ['ftp://h'] }, /gateway\.backends\.0 is "ftp:\/\/h": must be an http or https address/],
    [{ backends: ['http://h/v1'] }, /must be the root of the server, without \/v1/],
    [{ backends: ['http://u:p@h'] }, /must not hold a user/],
    [{ backends: ['http://h', 'http://h/'] }, /must not name a backend twice/],
    [{ host: '0.0.0.0' }, /gateway\.host is "0\.0\.0\.0": .*without API keys/],
    [{ timeouts: { connect_ms: 0 } }, /gateway\.timeouts\.connect_ms is 0: .*50/],
    [{ options: { budget_tokens_min: 9, budget_tokens_max: 8 } }, /budget_tokens_min must not be above/],
    [{ bakends: [] }, /bakends/],
  ] as const) {
    it(`refuses ${JSON.stringify(section)}`, () => {
      assert.throws(
        () => load(section),
        (error: unknown) => error instanceof ConfigError && message.test(error.message),
      );
    });
  }

  it('the section profiles gives names, and refuses what the policy service refuses', () => {
    const load = (profiles: object) => loadSection('profiles', profilesSchema, { profiles }, {});
    assert.deepEqual(Object.keys(load({ tight: { policy: 'window' }, wide: { policy: 'full' } })), ['tight', 'wide']);
    assert.throws(() => load({ 'a b': { policy: 'full' } }), ConfigError);
    assert.throws(() => load({ tight: { policy: 'lru' } }), /profiles\.tight\.policy is "lru"/);
    assert.throws(
      () => load({ tight: { policy: 'full', controller: { type: 'none' } } }),
      /profiles\.tight\.controller/,
    );
    assert.deepEqual(loadSection('profiles', profilesSchema, {}, {}), {});
  });
});

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfigError, loadSection, optionsOf, withoutSecrets } from '../../common/config.ts';
import { gatewaySchema } from '../../gateway/config.ts';

const load = (section: unknown) => loadSection('gateway', gatewaySchema, { gateway: section }, {});
const refuses = (section: unknown, pattern: RegExp) =>
  assert.throws(
    () => load(section),
    (error: unknown) => error instanceof ConfigError && pattern.test(error.message),
  );

describe('listening beyond this machine', () => {
  it('without keys is refused, and the message names option and address', () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.7', 'gateway.example']) {
      const pattern = `gateway\\.host is "${host}": .*on ${host}.*gateway\\.keys\\.store.*gateway\\.allow_unauthenticated`;
      refuses({ host }, new RegExp(pattern));
    }
  });

  it('is allowed with keys, or when told so', () => {
    assert.equal(load({ host: '0.0.0.0', keys: { store: 'file' } }).host, '0.0.0.0');
    assert.equal(load({ host: '0.0.0.0', allow_unauthenticated: true }).host, '0.0.0.0');
    for (const host of ['127.0.0.1', '127.8.9.1', 'localhost', '::1']) assert.equal(load({ host }).host, host);
  });

  it('needs an address for keys in Redis', () => {
    refuses({ keys: { store: 'redis' } }, /gateway\.keys\.store is "redis": needs gateway\.redis\.url/);
    assert.equal(load({ keys: { store: 'redis' }, redis: { url: 'redis://h:1' } }).keys.store, 'redis');
  });
});

describe('secrets of the configuration', () => {
  const config = load({
    backends: [{ url: 'http://h:1', apiKey: 'backend-secret' }],
    redis: { url: 'redis://:password@h:6379' },
  });

  it('are not printed', () => {
    const printed = JSON.stringify(withoutSecrets(config, optionsOf('gateway', gatewaySchema)));
    assert.ok(printed.includes('http://h:1'));
    for (const secret of ['backend-secret', 'password']) assert.ok(!printed.includes(secret));
  });

  it('are not in messages about what is wrong with them or beside them', () => {
    for (const backends of [
      [{ url: 'ftp://h', apiKey: 'backend-secret' }],
      [{ url: 'http://h', apiKey: 'backend secret' }],
      [{ url: 'http://h', api_key: 'backend-secret' }],
      [{ url: 'http://h', apiKey: 'backend-secret' }, 'http://h'],
    ]) {
      assert.throws(
        () => load({ backends }),
        (error: Error) => error instanceof ConfigError && !/backend.secret/.test(error.message),
      );
    }
    refuses({ redis: { url: 'http://:password@h' } }, /^gateway\.redis\.url is "\.\.\.": must be an address such as/);
  });
});

import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { KeyError } from '../../gateway/keys/entry.ts';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { createRedisStore } from '../../gateway/keys/redis-store.ts';
import { createSecret, digestOf, idOf, matches } from '../../gateway/keys/secret.ts';
import type { KeyStore } from '../../gateway/keys/store.ts';
import { folder, newKey } from './harness.ts';
import { NO_REDIS, startRedis } from './redis-server.ts';

const refusal = (pattern: RegExp) => (error: unknown) => error instanceof KeyError && pattern.test(error.message);

/** What every store of keys does. `open` makes a function that opens one and the same store. */
function behaves(name: string, skip: string | false, open: () => () => KeyStore): void {
  describe(name, { skip }, () => {
    it('gives back what was added, and says when nothing has changed', async () => {
      const store = open()();
      const empty = await store.load();
      assert.deepEqual(empty?.entries, []);
      assert.equal(await store.load(empty?.mark), undefined);
      const { entry } = newKey('one', { models: ['m'], requests_per_minute: 3, priority: -2 });
      await store.add(entry);
      const loaded = await store.load(empty?.mark);
      assert.deepEqual(loaded?.entries, [entry]);
      assert.equal(await store.load(loaded?.mark), undefined);
    });

    it('refuses a name twice', async () => {
      const store = open()();
      await store.add(newKey('one').entry);
      await assert.rejects(store.add(newKey('one').entry), refusal(/the name one is already used/));
    });

    it('removes by id and by name, and says when there is none', async () => {
      const store = open()();
      const [one, two] = [newKey('one').entry, newKey('two').entry];
      await store.add(one);
      await store.add(two);
      assert.deepEqual(await store.remove('one'), one);
      assert.deepEqual(await store.remove(two.id), two);
      assert.deepEqual((await store.load())?.entries, []);
      await assert.rejects(store.remove('one'), refusal(/no key with the id or name one/));
    });

    it('keeps what several add at the same time', async () => {
      const make = open();
      const names = Array.from({ length: 8 }, (_, index) => `key-${index}`);
      await Promise.all(names.map((each) => make().add(newKey(each).entry)));
      assert.deepEqual((await make().load())?.entries.map((entry) => entry.name).toSorted(), names);
    });
  });
}

behaves('keys in a file', false, () => {
  const path = join(folder({ after }), 'keys.json');
  return () => createFileStore(path);
});

const redis = NO_REDIS === false ? await startRedis({ after }) : undefined;
let prefixes = 0;
behaves('keys in Redis', NO_REDIS, () => {
  const client = redis!.client();
  const prefix = `test-${prefixes++}`;
  return () => createRedisStore({ client, prefix, place: 'redis' });
});

describe('the file of keys', () => {
  it('is readable by its owner only and holds no key', async (t) => {
    const path = join(folder(t), 'keys.json');
    const { entry, secret } = newKey('one');
    await createFileStore(path).add(entry);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.ok(!readFileSync(path, 'utf8').includes(secret.slice(17)));
  });

  for (const [text, pattern] of [
    ['{', /keys\.json is not valid JSON/],
    ['[]', /keys\.json: keys must be a list of keys/],
    ['{"keys":[{"id":"zz"}]}', /key 1: id is "zz": must be 12 hexadecimal digits/],
    ['{"keys":[{"priority":900}]}', /key 1: priority is 900: must be an integer from -100 to 100/],
  ] as const) {
    it(`that holds ${text} is refused by name`, async (t) => {
      const path = join(folder(t), 'keys.json');
      writeFileSync(path, text);
      await assert.rejects(createFileStore(path).load(), refusal(pattern));
    });
  }

  it('with one name twice is refused', async (t) => {
    const path = join(folder(t), 'keys.json');
    writeFileSync(path, JSON.stringify({ keys: [newKey('one').entry, newKey('one').entry] }));
    await assert.rejects(createFileStore(path).load(), refusal(/has the name one twice/));
  });

  it('does not show a digest that is malformed', async (t) => {
    const path = join(folder(t), 'keys.json');
    writeFileSync(path, JSON.stringify({ keys: [{ ...newKey('one').entry, sha256: 'ckv-mistaken' }] }));
    await assert.rejects(
      createFileStore(path).load(),
      (error: Error) => /sha256 must be 64/.test(error.message) && !error.message.includes('mistaken'),
    );
  });
});

describe('a key', () => {
  it('holds its id and 256 random bits, and matches its digest only', () => {
    const one = createSecret();
    const two = createSecret();
    assert.equal(idOf(one.secret), one.id);
    assert.equal(Buffer.from(one.secret.slice(17), 'base64url').length, 32);
    assert.notEqual(one.secret.slice(17), two.secret.slice(17));
    assert.equal(one.digest, digestOf(one.secret));
    assert.ok(matches(one.secret, one.digest));
    assert.ok(!matches(two.secret, one.digest));
    for (const text of ['', 'sk-1', one.secret.slice(1), `${one.secret}x`]) assert.equal(idOf(text), undefined);
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { readEvents } from '../../gateway/ui/page/events.js';
import type { PolicyServer } from '../../policy-service/rpc/server.ts';
import { type ErrorAnswer, startGateway } from '../gateway/harness.ts';
import { bearer, folder, newKey } from '../gateway-keys/harness.ts';
import { masses, row, ScriptedEngine, started, startService } from '../policy-service/scripted-engine.ts';
import { until } from '../support/until.ts';

const profiles = {
  default: { policy: 'crf', controller: { type: 'fixed', budget_tokens: 96 } },
  full: { policy: 'full' },
};
const BACKEND = 'http://127.0.0.1:9';
/** Whatever the tests say is in a request's cache has to fit. */
const POOL_BLOCKS = 100_000;

interface State {
  source: number;
  totals: { requests: number; residentBlocks: number; fullBlocks: number; generatedTokens: number };
  engines: { engineId: string; totalBlocks: number }[];
  requests: { id: string; blocks: number; hits: number[]; keep: string; ended: boolean }[];
}

interface Setup {
  budgetTokens: object;
  sources: {
    engines: { totalBlocks: number }[];
    profiles: { name: string }[];
    policies: { name: string }[];
  }[];
}

describe('the live page on the gateway', () => {
  const closing: (() => Promise<void> | void)[] = [];
  let service: PolicyServer;
  let engine: ScriptedEngine;

  beforeEach(async () => {
    service = await startService({}, profiles);
    engine = new ScriptedEngine(service.address);
    await engine.greet({ poolBlocks: POOL_BLOCKS });
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
    engine.close();
    await service.close();
  });

  async function gateway(config: object = {}) {
    const backends = [{ url: BACKEND, policyAddress: service.address }];
    const { gateway } = await startGateway({ backends, ...config });
    closing.push(() => gateway.close());
    return gateway;
  }

  /** A viewer; `states` and `lost` grow. */
  async function look(url: string) {
    const stop = new AbortController();
    closing.push(() => stop.abort());
    const response = await fetch(`${url}/ui/api/events`, { signal: stop.signal });
    const viewer = { response, states: [] as State[], lost: 0, ended: false, stop: () => stop.abort() };
    void readEvents(response, (event, data) => {
      if (event === 'state') viewer.states.push(JSON.parse(data));
      if (event === 'lost') viewer.lost += 1;
    })
      .catch(() => {})
      .then(() => {
        viewer.ended = true;
      });
    return viewer;
  }

  test('serves the page under a policy that allows nothing but its own files', async () => {
    const { url } = await gateway();
    const page = await fetch(`${url}/ui`);
    assert.equal(page.status, 200);
    const policy = page.headers.get('content-security-policy') ?? '';
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'/);
    assert.doesNotMatch(policy, /unsafe|https?:|\*/);
    const html = await page.text();
    assert.doesNotMatch(html, /<style|<script>|style="| on[a-z]+="|https?:\/\//);
    for (const [, path] of html.matchAll(/(?:src|href)="(ui\/[^"]+)"/g)) {
      const file = await fetch(`${url}/${path}`);
      assert.equal(file.status, 200, path);
      assert.equal(file.headers.get('x-content-type-options'), 'nosniff');
      const again = await fetch(`${url}/${path}`, { headers: { 'if-none-match': file.headers.get('etag') ?? '' } });
      assert.equal(again.status, 304, path);
    }
    for (const path of ['/', '/ui/']) {
      assert.equal((await fetch(`${url}${path}`)).url, `${url}/ui`, path);
    }
    assert.equal((await fetch(`${url}/favicon.ico`)).headers.get('content-type'), 'image/svg+xml');
    for (const path of ['/ui/../config.ts', '/ui/tsconfig.json', '/ui/uplot.d.ts', '/ui/nothing.js']) {
      assert.equal((await fetch(`${url}${path}`)).status, 404, path);
    }
    assert.equal((await fetch(`${url}/ui`, { method: 'POST' })).status, 405);
  });

  test('can be switched off', async () => {
    const { url } = await gateway({ ui: { enabled: 'off' } });
    for (const path of ['/', '/favicon.ico', '/ui', '/ui/main.js', '/ui/api/setup', '/ui/api/events']) {
      assert.equal((await fetch(`${url}${path}`)).status, 404, path);
    }
  });

  test('needs no key for the page, and one for what it shows; a key sees its own profiles', async (t) => {
    const key = newKey('viewer', { profiles: ['full'] });
    const file = join(folder(t), 'keys.json');
    await createFileStore(file).add(key.entry);
    const { url } = await gateway({ keys: { store: 'file', file } });
    assert.equal((await fetch(`${url}/ui`)).status, 200);
    for (const path of ['/ui/api/setup', '/ui/api/events']) {
      assert.equal((await fetch(`${url}${path}`)).status, 401, path);
    }
    const { sources } = (await (await fetch(`${url}/ui/api/setup`, bearer(key))).json()) as Setup;
    assert.deepEqual(
      sources[0]?.profiles.map(({ name }) => name),
      ['full'],
    );
  });

  test('tells profiles, policies and engines; a service that is gone is told as such', async () => {
    const { url } = await gateway({
      backends: [
        { url: BACKEND, policyAddress: service.address },
        { url: `${BACKEND}1`, policyAddress: '127.0.0.1:1' },
      ],
      options: { budget_tokens_min: 32, budget_tokens_max: 512 },
    });
    const answer = (await (await fetch(`${url}/ui/api/setup`)).json()) as Setup;
    assert.deepEqual(answer.budgetTokens, { min: 32, max: 512 });
    assert.deepEqual(
      answer.sources[0]?.profiles.map(({ name }) => name),
      ['default', 'full'],
    );
    assert.equal(answer.sources[0]?.engines[0]?.totalBlocks, POOL_BLOCKS);
    assert.ok(answer.sources[0]?.policies.some(({ name }) => name === 'crystal'));
    assert.deepEqual(answer.sources[1], { reachable: false, engines: [], profiles: [], policies: [] });
  });

  test('streams what happens to the blocks, up to the last state of a request', async () => {
    const { url } = await gateway();
    const viewer = await look(url);
    assert.match(viewer.response.headers.get('content-type') ?? '', /^text\/event-stream/);
    engine.start(started(1, { crystalkvId: 'abc' }));
    const plan = await engine.step(1, [row(1, 136, { masses: masses(9, [3]) })]);
    const first = await until(() => viewer.states.find(({ requests }) => requests[0]?.blocks === 9), 'nine blocks');
    assert.equal(first.requests[0]?.id, 'abc');
    assert.equal(first.requests[0]?.hits[3], 1);
    assert.deepEqual(first.totals, { requests: 1, residentBlocks: 9, fullBlocks: 9, generatedTokens: 104 });
    engine.obey(plan);
    await until(() => viewer.states.at(-1)?.totals.residentBlocks === 8, 'one block less');
    const bits = Buffer.from(viewer.states.at(-1)?.requests[0]?.keep ?? '', 'base64');
    assert.deepEqual([...bits], [0b11111011, 0b1]);
    engine.send({ $case: 'finished', value: { handle: 1, reason: 1, generatedTokens: 104, probeTokens: 0 } });
    await until(() => viewer.states.some(({ requests }) => requests[0]?.ended === true), 'the last state');
    await until(() => viewer.states.at(-1)?.totals.requests === 0, 'nothing running');
  });

  test('says when the policy service is lost, and goes on when it is back', async () => {
    const { url } = await gateway();
    const viewer = await look(url);
    await until(() => viewer.states.length > 0, 'a state');
    const { port } = service;
    engine.close();
    await service.close();
    await until(() => viewer.lost > 0, 'the loss');
    const seen = viewer.states.length;
    service = await startService({ port }, profiles);
    engine = new ScriptedEngine(service.address);
    await engine.greet({ poolBlocks: POOL_BLOCKS });
    await until(() => viewer.states.length > seen && viewer.states.at(-1)?.engines.length === 1, 'the engine again');
  });

  test('does not hold up a gateway that stops', async () => {
    const own = await gateway({ drain_ms: 60_000 });
    const viewer = await look(own.url);
    await until(() => viewer.states.length > 0, 'a state');
    await own.close();
    await until(() => viewer.ended, 'the end of the stream');
  });

  test('refuses more viewers than it can serve', async () => {
    const { url } = await gateway();
    const viewers = await Promise.all(Array.from({ length: 32 }, () => look(url)));
    assert.ok(viewers.every(({ response }) => response.status === 200));
    const refused = await fetch(`${url}/ui/api/events`);
    assert.equal(refused.status, 503);
    assert.match(((await refused.json()) as ErrorAnswer).error.message, /32 live pages are open already/);
    viewers[0]?.stop();
    await until(async () => {
      const next = await look(url);
      return next.response.status === 200;
    }, 'room for another');
  });

  test('leaves states out for a viewer that does not read, and gives it the newest then', async () => {
    const { url, port } = await gateway();
    for (let handle = 1; handle <= 20; handle += 1) engine.start(started(handle));
    const step = (number: number, tokens: number) =>
      engine.step(
        number,
        Array.from({ length: 20 }, (_, i) => row(i + 1, tokens)),
      );
    await step(1, 16_000);
    const fast = await look(url);
    const socket = connect(port, '127.0.0.1');
    closing.push(() => void socket.destroy());
    await once(socket, 'connect');
    socket.write('GET /ui/api/events HTTP/1.1\r\nHost: x\r\n\r\n');
    socket.pause();
    // A state of 20 requests with 1,000 blocks each is far more than the sockets' buffers hold after some of them.
    for (let number = 2; number <= 80; number += 1) {
      await step(number, 16_000 + number);
      await until(() => fast.states.at(-1)?.totals.generatedTokens === 20 * (15_968 + number), 'the next state');
    }
    let text = '';
    socket.setEncoding('utf8').on('data', (piece: string) => {
      text += piece;
    });
    socket.resume();
    await step(81, 17_000);
    await until(() => text.includes(`"generatedTokens":${20 * 16_968}`), 'the newest state');
    const received = text.split('event: state').length - 1;
    assert.ok(received < fast.states.length, `${received} of ${fast.states.length}`);
  });
});

test('several viewers share one watch, which ends with the last of them', async (t) => {
  const { WatchHub } = await import('../../gateway/ui/watch-hub.ts');
  const { PolicyPeer } = await import('../../gateway/fleet/policy-peer.ts');
  const service = await startService({}, profiles);
  let watches = 0;
  class CountingPeer extends PolicyPeer {
    override watch(...parameters: Parameters<InstanceType<typeof PolicyPeer>['watch']>) {
      watches += 1;
      return super.watch(...parameters);
    }
  }
  const peer = new CountingPeer({ address: service.address });
  t.after(async () => {
    peer.close();
    await service.close();
  });
  const hub = new WatchHub(0, peer);
  const seen = [0, 0];
  const removals = seen.map((_, index) =>
    hub.add({
      send() {
        seen[index]! += 1;
      },
    }),
  );
  await until(() => seen.every((count) => count > 0), 'states for both');
  assert.equal(watches, 1);
  removals[0]?.();
  assert.ok(hub.watching);
  removals[1]?.();
  assert.ok(!hub.watching);
  const late: string[] = [];
  const remove = hub.add({ send: (event) => void late.push(event) });
  await until(() => late.includes('state'), 'a state of a new watch');
  assert.equal(watches, 2);
  remove();
});

import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { createUDPServer, Packet } from 'dns2';
import { until } from '../support/until.ts';
import { fleet, named, whoAnswers } from './fleet-harness.ts';
import { chat, metric, startGateway } from './harness.ts';
import { createUpstream, hang, type Upstream } from './upstream.ts';

interface NameServer {
  address: string;
  /** What a name has; undefined: NXDOMAIN. */
  addresses: string[] | undefined;
  asked: number;
  close(): Promise<void>;
}

/** A name server over UDP that knows one name. */
async function nameServer(t: TestContext, name: string, addresses: string[] | undefined): Promise<NameServer> {
  const server = createUDPServer((request, send) => {
    const response = Packet.createResponseFromRequest(request);
    const [question] = request.questions;
    state.asked++;
    if (question?.name.toLowerCase() !== name || state.addresses === undefined) {
      response.header.rcode = Packet.RCODE.NXDOMAIN;
    } else if (question.type === Packet.TYPE.A) {
      for (const address of state.addresses) {
        if (!address.includes(':'))
          response.answers.push(Packet.createResourceFromQuestion(question, { ttl: 0, address }));
      }
    } else if (question.type === Packet.TYPE.AAAA) {
      for (const address of state.addresses) {
        if (address.includes(':'))
          response.answers.push(Packet.createResourceFromQuestion(question, { ttl: 0, address }));
      }
    }
    send(response);
  });
  await server.listen(0, '127.0.0.1');
  let closed = false;
  const state: NameServer = {
    address: `127.0.0.1:${server.address().port}`,
    addresses,
    asked: 0,
    close: () =>
      new Promise((resolve) => {
        if (closed) resolve();
        else server.close(() => resolve());
        closed = true;
      }),
  };
  t.after(() => state.close());
  return state;
}

/** Two servers on the same port of different loopback addresses, as pods have it. */
async function pods(t: TestContext): Promise<Upstream[]> {
  const first = await createUpstream(named('a'));
  const second = await createUpstream(named('b'), first.port, '127.0.0.2');
  t.after(() => Promise.all([first.close(), second.close()]));
  return [first, second];
}

const NAME = 'vllm.default.svc';

async function answering(gateway: { url: string }, wanted: string): Promise<void> {
  await until(async () => {
    const names = new Set<string | number>();
    for (let i = 0; i < 4; i++) names.add(await whoAnswers(gateway as never, {}));
    return [...names].toSorted().join() === wanted;
  }, `${wanted} answer`);
}

describe('backends from DNS', () => {
  it('are the addresses of the name, asked for again and again; a removed one finishes what it has', async (t) => {
    const [a, b] = await pods(t);
    const dns = await nameServer(t, NAME, ['127.0.0.1', '127.0.0.2']);
    const { gateway } = await fleet(t, [], {
      dns_servers: [dns.address],
      backends: [{ dns: NAME, port: a!.port, interval_ms: 100 }],
    });
    await answering(gateway, 'a,b');
    b!.script = hang;
    const running = [chat(gateway), chat(gateway)];
    await until(() => b!.received.some(({ response }) => !response.writableEnded), 'one runs on b');
    dns.addresses = ['127.0.0.1'];
    await answering(gateway, 'a');
    const waits = b!.received.filter(({ response }) => !response.writableEnded);
    for (const { response, aborted } of waits) {
      assert.equal(aborted, false);
      response.end('{"name":"late"}');
    }
    for (const answer of running) assert.equal((await answer).status, 200);
    await until(
      async () => !(await (await fetch(gateway.metricsUrl)).text()).includes(b!.url),
      'the series of b are gone',
    );
    b!.script = named('b');
    dns.addresses = ['127.0.0.2'];
    await answering(gateway, 'b');
  });

  for (const [family, wanted] of [
    ['auto', ['http://127.0.0.1']],
    ['ipv6', ['http://[::1]']],
    ['both', ['http://127.0.0.1', 'http://[::1]']],
  ] as const) {
    it(`are of a name with addresses of both families those that ${family} means`, async (t) => {
      const dns = await nameServer(t, NAME, ['127.0.0.1', '::1']);
      const { gateway } = await startGateway({
        dns_servers: [dns.address],
        backends: [{ dns: NAME, port: 9, ...(family !== 'auto' && { family }) }],
        health: { interval_ms: 0 },
      });
      t.after(() => gateway.close());
      const text = await (await fetch(gateway.metricsUrl)).text();
      const found = [...text.matchAll(/^crystalkv_gateway_backend_outstanding\{backend="(.*):9"\}/gm)].map(
        ([, url]) => url,
      );
      assert.deepEqual(found.toSorted(), wanted);
    });
  }

  it('stay when the name server fails or has no address for a moment, which is counted', async (t) => {
    const [a] = await pods(t);
    const dns = await nameServer(t, NAME, ['127.0.0.1']);
    const { gateway, log } = await fleet(t, [], {
      dns_servers: [dns.address],
      backends: [{ dns: NAME, port: a!.port, interval_ms: 100 }],
    });
    await answering(gateway, 'a');
    const errors = `crystalkv_gateway_dns_lookups_total{name="${NAME}",result="error"}`;
    dns.addresses = undefined;
    await until(async () => ((await metric(gateway, errors)) ?? 0) >= 2, 'it has failed');
    await answering(gateway, 'a');
    assert.equal(log.find(({ name }) => name === NAME)?.['msg'], 'the name of a backend cannot be resolved');
    dns.addresses = ['127.0.0.2'];
    await answering(gateway, 'b');
  });

  it('need not be there at the start: 503 and not ready until they are', async (t) => {
    const [a] = await pods(t);
    const dns = await nameServer(t, NAME, undefined);
    const { gateway } = await startGateway({
      dns_servers: [dns.address],
      backends: [{ dns: NAME, port: a!.port, interval_ms: 100 }],
    });
    t.after(() => gateway.close());
    const response = await chat(gateway);
    assert.equal(response.status, 503);
    assert.match(await response.text(), /gateway_no_backend/);
    assert.equal((await fetch(`${gateway.url}/ready`)).status, 503);
    dns.addresses = ['127.0.0.1'];
    await answering(gateway, 'a');
    await until(async () => (await fetch(`${gateway.url}/ready`)).status === 200, 'ready');
  });

  it('stand beside listed ones, each address once; the system’s resolver is asked by default', async (t) => {
    const upstream = await createUpstream(named('a'));
    t.after(() => upstream.close());
    const { gateway } = await fleet(t, [], { backends: [upstream.url, { dns: 'localhost', port: upstream.port }] });
    assert.equal(await whoAnswers(gateway, {}), 'a');
    const text = await (await fetch(gateway.metricsUrl)).text();
    const listed = text.split('\n').filter((line) => line.startsWith('crystalkv_gateway_backend_healthy{'));
    assert.equal(listed.filter((line) => line.includes('127.0.0.1')).length, 1);
  });
});

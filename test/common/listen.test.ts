import assert from 'node:assert/strict';
import type { RequestListener } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { canShareAPort } from '../../common/acceptors.ts';
import { type Listening, listen, metricsHandler } from '../../common/http.ts';
import { until } from '../support/until.ts';

const HOST = '127.0.0.1';
const answer: RequestListener = (_request, response) => void response.end('here');

/** How many turns of a busy event loop pass while the listener takes `count` connections. */
async function turnsFor({ server, port }: Listening, count: number): Promise<number> {
  let taken = 0;
  let turns = 0;
  const clients: Socket[] = [];
  await new Promise<void>((resolve) => {
    server.on('connection', () => {
      taken += 1;
    });
    const turn = () => {
      turns += 1;
      if (taken === count) resolve();
      else setImmediate(turn);
    };
    for (let index = 0; index < count; index++) clients.push(connect(port, HOST));
    turn();
  });
  for (const client of clients) client.destroy();
  return turns;
}

describe('a listener with several acceptors', { skip: canShareAPort ? false : 'needs Linux' }, () => {
  it('takes several connections in one turn of the event loop', async (t) => {
    const several = await listen(answer, HOST, 0, undefined, { acceptors: 16 });
    t.after(() => several.close());
    const turns = await turnsFor(several, 200);
    assert.ok(turns < 100, `${turns} turns`);
  });

  it('answers on connections of each', async (t) => {
    const several = await listen(answer, HOST, 0, undefined, { acceptors: 4 });
    t.after(() => several.close());
    const headers = { connection: 'close' };
    const all = Array.from({ length: 40 }, async () => (await fetch(several.url, { headers })).text());
    assert.deepEqual(new Set(await Promise.all(all)), new Set(['here']));
  });

  it('finds that its port is in use by another one', async (t) => {
    const first = await listen(answer, HOST, 0, undefined, { acceptors: 4 });
    t.after(() => first.close());
    await assert.rejects(listen(answer, HOST, first.port, undefined, { acceptors: 4 }), /the port is in use$/);
    await assert.rejects(listen(answer, HOST, first.port), /the port is in use$/);
    assert.equal(await (await fetch(first.url)).text(), 'here');
  });

  it('leaves the port at once when it closes, and ends with its last connection', async () => {
    const several = await listen(answer, HOST, 0, undefined, { acceptors: 4 });
    let taken = 0;
    several.server.on('connection', () => {
      taken += 1;
    });
    const open = Array.from({ length: 8 }, () => connect(several.port, HOST));
    await until(() => taken === open.length, 'all are taken');
    let closed = false;
    const closing = several.close().then(() => {
      closed = true;
    });
    await assert.rejects(fetch(several.url));
    assert.equal(closed, false);
    await (await listen(answer, HOST, several.port, undefined, { acceptors: 4 })).close();
    assert.equal(closed, false);
    for (const socket of open) socket.destroy();
    await closing;
  });
});

describe('metrics', () => {
  it('are made once for all requests that come together', async (t) => {
    let made = 0;
    const source = {
      contentType: 'text/plain',
      async metrics() {
        made += 1;
        await new Promise((resolve) => setImmediate(resolve));
        return `made ${made}\n`;
      },
    };
    const listener = await listen(metricsHandler(source), HOST, 0);
    t.after(() => listener.close());
    const client = connect(listener.port, HOST);
    t.after(() => client.destroy());
    let text = '';
    client.setEncoding('latin1').on('data', (piece: string) => {
      text += piece;
    });
    client.write('GET /metrics HTTP/1.1\r\nhost: m\r\n\r\n'.repeat(500));
    await until(() => text.split('made ').length === 501, 'all are answered');
    assert.ok(made <= 50, `made ${made} times`);
    const later = await (await fetch(`${listener.url}/metrics`)).text();
    assert.equal(later, `made ${made}\n`);
  });
});

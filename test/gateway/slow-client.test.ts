import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { metric, setup } from './harness.ts';
import { rawClient, type Script } from './upstream.ts';

const MIB = 1024 * 1024;
const TOTAL = 128 * MIB;
/** Kernel buffers of two connections and the sockets' own; the rest must still be at the backend. */
const IN_FLIGHT = 48 * MIB;

describe('checklist 12: a slow client', () => {
  for (const type of ['text/event-stream', 'application/json']) {
    it(`stalls the backend instead of filling memory (${type})`, async (t) => {
      const event = Buffer.from(`data: ${'x'.repeat(64 * 1024 - 8)}\n\n`);
      let written = 0;
      const flood: Script = async ({ response }) => {
        response.writeHead(200, { 'content-type': type, 'content-length': String(TOTAL) });
        while (written < TOTAL && !response.destroyed) {
          written += event.length;
          if (!response.write(event)) await once(response, 'drain').catch(() => {});
        }
        response.end();
      };
      const { gateway } = await setup(t, flood, { timeouts: { idle_ms: 100 } });
      const client = await rawClient(gateway.port);
      client.socket.removeAllListeners('data');
      client.socket.pause();
      client.write('POST /v1/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}');

      let last = -1;
      let still = 0;
      await until(() => {
        still = written === last && written > 0 ? still + 1 : 0;
        last = written;
        // Longer than idle_ms and its resolution: a client that is slow is not a backend that is idle.
        return still > 400;
      }, 'the backend is stalled');
      assert.ok(written < IN_FLIGHT, `${written} bytes were taken from the backend`);

      let read = 0;
      client.socket.on('data', (chunk: Buffer) => {
        read += chunk.length;
      });
      client.socket.resume();
      await until(() => client.closed(), 'everything is read', { ms: 60_000 });
      assert.ok(read > TOTAL, `${read} bytes were read`);
      assert.equal(await metric(gateway, 'crystalkv_gateway_client_aborts_total{stage="streaming"}'), 0);
    });
  }
});

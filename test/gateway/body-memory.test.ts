import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { until } from '../support/until.ts';
import { chat, metric, metricReaches, setup, startGateway } from './harness.ts';
import { hang, json, rawClient } from './upstream.ts';

const MIB = 1024 * 1024;
const HELD = 'crystalkv_gateway_body_bytes';

/** Garbage is collected, which Node does not offer otherwise. */
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const image = (bytes: number) => `{"model":"m","stream":true,"image":"${'A'.repeat(bytes)}"}`;

/** A server that keeps nothing of what it is sent, answers with the first event of a stream and goes on for ever. */
async function forgetful(t: { after(end: () => void): void }): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let left: number | undefined;
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      const head = left === undefined ? chunk.toString('latin1') : '';
      const announced = /content-length: (\d+)/i.exec(head)?.[1];
      left = (left ?? Number(announced) + head.indexOf('\r\n\r\n') + 4) - chunk.length;
      if (left > 0) return;
      socket.write('HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n');
      socket.write('9\r\ndata: x\n\n\r\n');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe('memory of request bodies', () => {
  it('is let go when the response begins', async (t) => {
    const { gateway } = await startGateway({ backends: [await forgetful(t)] });
    t.after(() => gateway.close());
    collect();
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 8; i++) {
      const client = await rawClient(gateway.port);
      const body = image(8 * MIB);
      client.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: ${body.length}\r\n\r\n`);
      client.write(body);
      await until(() => client.text().includes('data: x'), 'the first event is there');
    }
    assert.equal(await metric(gateway, HELD), 0);
    await until(() => {
      collect();
      return process.memoryUsage().arrayBuffers - before < 8 * MIB;
    }, 'the bodies of running streams are gone');
  });

  it('is counted until then, and given back by a client that leaves', async (t) => {
    const { gateway } = await setup(t, hang);
    const client = await rawClient(gateway.port);
    client.write('POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{"model":"m"');
    await metricReaches(gateway, HELD, 12);
    client.write(`${' '.repeat(987)}}`);
    await metricReaches(gateway, HELD, 1000);
    client.socket.destroy();
    await metricReaches(gateway, HELD, 0);
  });

  it('is given back at once by a client that leaves, without waiting for garbage to be collected', async (t) => {
    const { gateway } = await setup(t, hang);
    const client = await rawClient(gateway.port);
    client.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: ${32 * MIB}\r\n\r\n`);
    client.write(' '.repeat(16 * MIB));
    await metricReaches(gateway, HELD, 16 * MIB);
    const before = process.memoryUsage().arrayBuffers;
    client.socket.destroy();
    await until(() => before - process.memoryUsage().arrayBuffers > 16 * MIB, 'it is given back');
  });

  it('has a bound for the whole process, beyond which requests are told to come again', async (t) => {
    const { gateway } = await setup(t, hang, { body_limit_bytes: 1024, admission: { body_bytes: 2048 } });
    const send = async (length: number, part: number) => {
      const client = await rawClient(gateway.port);
      client.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: ${length}\r\n\r\n`);
      client.write(' '.repeat(part));
      return client;
    };
    const slow = [await send(1024, 1000), await send(1024, 1000)];
    await metricReaches(gateway, HELD, 2000);
    // Announced.
    const announced = await send(100, 0);
    await until(() => announced.text().startsWith('HTTP/1.1 503'), 'there is no room for what is announced');
    assert.match(announced.text(), /\r\nretry-after: 1\r\n/i);
    // Not announced.
    const late = await send(40, 40);
    await until(() => late.text() !== '' || late.closed(), 'a short one is served or refused');
    const chunked = await rawClient(gateway.port);
    chunked.write('POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n');
    chunked.write(`40\r\n${' '.repeat(64)}\r\n`);
    await until(() => chunked.text().startsWith('HTTP/1.1 503'), 'there is no room for what comes');
    assert.equal(await metric(gateway, 'crystalkv_gateway_shed_total{reason="body_bytes"}'), 2);
    for (const { socket } of slow) socket.destroy();
    await metricReaches(gateway, HELD, 0);
  });

  it('has room for one body of the largest size, whatever its bound', async (t) => {
    const { gateway } = await setup(t, json('{}'), { admission: { body_bytes: 1024 } });
    assert.equal((await chat(gateway, image(100_000))).status, 200);
  });

  it('passes a long body on to the byte, in pieces of any size, announced or not', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'), { usage: { metering: 'off' } });
    const text = `{"model":"m","crystal_kv":{"mode":"off"},"x":[${'"\\"é",1.50 ,'.repeat(20_000)}0]}`;
    const bytes = Buffer.from(text);
    for (const size of [1_000, 70_000, bytes.length]) {
      const client = await rawClient(gateway.port);
      client.write('POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n');
      for (let at = 0; at < bytes.length; at += size) {
        const piece = bytes.subarray(at, at + size);
        client.write(`${piece.length.toString(16)}\r\n`);
        client.write(piece);
        client.write('\r\n');
      }
      client.write('0\r\n\r\n');
      await until(() => client.text().startsWith('HTTP/1.1 200'), 'it is answered');
      const sent = upstream.received.at(-1)?.body.toString() ?? '';
      assert.equal(sent.replace(/"vllm_xargs":\{[^}]*\},/, ''), text.replace('"crystal_kv":{"mode":"off"},', ''));
      client.socket.destroy();
    }
  });
});

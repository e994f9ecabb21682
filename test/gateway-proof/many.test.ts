import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { listening, run } from '../gateway/program.ts';
import { until } from '../support/until.ts';

const MIB = 1024 * 1024;
const STREAMS = 5_000;
/** Connections are opened so many at a time: a listen queue is not endless. */
const AT_ONCE = 100;

async function metrics(url: string): Promise<(name: string) => number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return (name) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)`, 'm').exec(text)?.[1] ?? Number.NaN);
}

async function start(t: TestContext, handler: (response: ServerResponse) => void) {
  const server = createServer((request, response) => {
    request.resume();
    if (request.method === 'GET') response.end();
    else request.once('end', () => handler(response));
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1024 });
  await once(server, 'listening');
  const program = await run(t, {
    CRYSTALKV_GATEWAY_PORT: '0',
    CRYSTALKV_GATEWAY_BACKENDS: `[http://127.0.0.1:${(server.address() as AddressInfo).port}]`,
    CRYSTALKV_GATEWAY_LOG_LEVEL: 'info',
    // This machine may be busy; what is measured is memory and sockets.
    CRYSTALKV_GATEWAY_ADMISSION_EVENT_LOOP_DELAY_MS: '0',
    CRYSTALKV_GATEWAY_TIMEOUTS_CONNECT_MS: '60000',
    CRYSTALKV_GATEWAY_DRAIN_MS: '0',
  });
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { program, url: await listening(program) };
}

async function openStream(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  const body = '{"stream":true}';
  socket.write(`POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  return socket;
}

/** Open files that a process here may have: `ulimit -Hn`, to which Node raises its own limit. */
function openFilesLimit(): number {
  const report = process.report.getReport() as unknown as { userLimits: { open_files: { hard: number | string } } };
  const { hard } = report.userLimits.open_files;
  return typeof hard === 'number' ? hard : Number.POSITIVE_INFINITY;
}

describe('checklist 12: memory', () => {
  it(`${STREAMS} idle streams are held, reached and ended`, { timeout: 210_000 }, async (t) => {
    const limit = openFilesLimit();
    if (limit < 2 * STREAMS + 500) {
      t.skip(`needs ${2 * STREAMS + 500} open files; ulimit -Hn is ${limit}`);
      return;
    }
    const responses: ServerResponse[] = [];
    let open = 0;
    const { program, url } = await start(t, (response) => {
      open++;
      response.on('close', () => open--);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: first\n\n');
      responses.push(response);
    });
    const port = Number(new URL(url).port);
    const before = (await metrics(url))('process_resident_memory_bytes');
    const sockets: Socket[] = [];
    const got = { first: 0, second: 0 };
    while (sockets.length < STREAMS) {
      const batch = await Promise.all(Array.from({ length: AT_ONCE }, () => openStream(port)));
      for (const socket of batch) {
        socket.setEncoding('latin1').on('data', (text: string) => {
          if (text.includes('data: first')) got.first++;
          if (text.includes('data: second')) got.second++;
        });
      }
      sockets.push(...batch);
      await until(() => got.first === sockets.length, `${sockets.length} streams have begun`, { ms: 120_000 });
    }
    const read = await metrics(url);
    assert.equal(read('crystalkv_gateway_inflight'), STREAMS);
    const perStream = (read('process_resident_memory_bytes') - before) / STREAMS;
    t.diagnostic(`${Math.round(perStream / 1024)} KiB a stream`);
    assert.ok(perStream < 128 * 1024, `${perStream} bytes a stream`);
    for (const response of responses) response.write('data: second\n\n');
    await until(() => got.second === STREAMS, 'every stream gets another event', { ms: 120_000 });
    for (const socket of sockets) socket.destroy();
    await until(() => open === 0, 'the backend sees all of them leave', { ms: 120_000 });
    await until(async () => (await metrics(url))('crystalkv_gateway_inflight') === 0, 'none is left', { ms: 120_000 });
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
  });

  it('slow readers do not make it grow', { timeout: 80_000 }, async (t) => {
    const readers = 16;
    const event = Buffer.from(`data: ${'x'.repeat(64 * 1024)}\n\n`);
    let written = 0;
    const { url } = await start(t, (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.on('error', () => {});
      let sent = 0;
      const pump = () => {
        while (sent < 64 * MIB && !response.destroyed) {
          sent += event.length;
          written += event.length;
          if (!response.write(event)) return;
        }
      };
      response.on('drain', pump);
      pump();
    });
    const before = (await metrics(url))('process_resident_memory_bytes');
    const sockets = await Promise.all(Array.from({ length: readers }, () => openStream(Number(new URL(url).port))));
    for (const socket of sockets) socket.pause();
    let last = -1;
    let still = 0;
    await until(
      () => {
        still = written > 0 && written === last ? still + 1 : 0;
        last = written;
        return still > 200;
      },
      'the backend is stalled',
      { ms: 60_000 },
    );
    const grown = (await metrics(url))('process_resident_memory_bytes') - before;
    t.diagnostic(
      `${readers} readers: ${Math.round(written / MIB)} MiB sent by the backend, ${Math.round(grown / MIB)} MiB grown`,
    );
    assert.ok(written < readers * 48 * MIB, `${written} bytes were taken from the backend`);
    assert.ok(grown < 256 * MIB, `${grown} bytes more`);
    for (const socket of sockets) socket.destroy();
    await until(async () => (await metrics(url))('crystalkv_gateway_inflight') === 0, 'none is left', { ms: 60_000 });
  });
});

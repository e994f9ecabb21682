import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { type Dispatcher, Pool } from 'undici';
import { directConnector } from '../../gateway/fleet/direct-read.ts';
import { freePorts } from '../../scripts/ports.ts';

const HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n';
const BODY = Buffer.alloc(3_000_000, 'the bytes of a body, none of which may change its place; ');

/** A server that answers each request with `write`, and a pool that reads it directly. */
async function pool(t: TestContext, write: (socket: Socket) => void): Promise<Pool> {
  const [port = 0] = await freePorts(1);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => write(socket));
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const made = new Pool(`http://127.0.0.1:${port}`, { pipelining: 1, connect: directConnector({ allowH2: false }) });
  t.after(async () => {
    await made.destroy();
    server.close();
  });
  return made;
}

/** The pieces of the body as they were given, seen when the last had come. `slow`: the reader pauses after each. */
function piecesFrom(from: Pool, slow: boolean): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  return new Promise((resolve, reject) => {
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart() {},
      onResponseStart() {},
      onResponseData(controller, piece) {
        pieces.push(piece);
        if (!slow) return;
        controller.pause();
        setTimeout(() => controller.resume(), 1);
      },
      onResponseEnd: () => resolve(pieces),
      onResponseError: (_, error) => reject(error),
    };
    from.dispatch({ method: 'GET', path: '/' }, handler);
  });
}

describe('what a backend sends', () => {
  for (const slow of [false, true]) {
    const who = slow ? 'a slow reader' : 'a reader';

    it(`comes whole to ${who}, and stays as it came while more is read`, async (t) => {
      const from = await pool(t, (socket) => {
        socket.write(`${HEAD}content-length: ${BODY.length}\r\n\r\n`);
        socket.write(BODY);
      });
      for (let turn = 0; turn < 2; turn++) assert.ok(Buffer.concat(await piecesFrom(from, slow)).equals(BODY));
    });

    it(`comes whole to ${who} where only the end of the connection ends it`, async (t) => {
      const from = await pool(t, (socket) => {
        socket.write(`${HEAD}connection: close\r\n\r\n`);
        socket.end(BODY);
      });
      assert.ok(Buffer.concat(await piecesFrom(from, slow)).equals(BODY));
    });
  }

  it('that breaks off is an error', async (t) => {
    const from = await pool(t, (socket) => {
      socket.write(`${HEAD}content-length: 10\r\n\r\n12345`, () => socket.destroy());
    });
    await assert.rejects(piecesFrom(from, false), /other side closed|terminated|ECONNRESET/);
  });

  it('is not read further while nobody takes it', async (t) => {
    let sent: Socket | undefined;
    const from = await pool(t, (socket) => {
      sent = socket;
      socket.write(`${HEAD}\r\n`);
      socket.write(Buffer.alloc(64_000_000));
    });
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart() {},
      onResponseStart() {},
      onResponseData: (controller) => controller.pause(),
      onResponseEnd() {},
      onResponseError() {},
    };
    from.dispatch({ method: 'GET', path: '/' }, handler);
    let before = -1;
    // Until what lies between them, in both kernels, is full.
    while (sent === undefined || sent.writableLength !== before) {
      before = sent?.writableLength ?? -1;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.ok(before > 32_000_000, `${before} bytes wait`);
  });
});

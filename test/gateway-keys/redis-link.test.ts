import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { openRedis } from '../../gateway/redis.ts';
import { until } from '../support/until.ts';

/** Speaks as much of Redis' protocol as a connection needs. The n-th connection answers writes with the n-th answer. */
async function scripted(t: TestContext, answers: readonly string[]) {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const answer = answers[Math.min(sockets.length, answers.length - 1)] as string;
    sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      for (const [, word] of bytes.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        const info = '$9\r\nloading:0\r\n';
        socket.write(word!.toLowerCase() === 'info' ? info : word!.toLowerCase() === 'set' ? answer : '+OK\r\n');
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

describe('the connection to Redis', () => {
  for (const refusal of [
    "READONLY You can't write against a read only replica.",
    'ERR Error running script: @user_script:40: -READONLY You cannot write against a read only replica.',
    'LOADING Redis is loading the dataset in memory',
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    'NOAUTH Authentication required.',
  ]) {
    it(`is made again after ${refusal.slice(0, 45)}`, async (t) => {
      const { url, sockets } = await scripted(t, [`-${refusal}\r\n`, '+OK\r\n']);
      const link = openRedis({ url, prefix: 'p', timeout_ms: 1_000, on_failure: 'local' })!;
      t.after(() => link.close());
      await link.reached(5_000);
      await assert.rejects(link.probe());
      await until(async () => (await link.probe().catch(() => undefined)) === 'OK', 'the next connection takes writes');
      assert.equal(sockets.length, 2);
    });
  }

  it('is made again when nothing is answered any more, though nobody asks', async (t) => {
    const { url, sockets } = await scripted(t, ['', '+OK\r\n']);
    const link = openRedis({ url, prefix: 'p', timeout_ms: 100, on_failure: 'local' })!;
    t.after(() => link.close());
    await until(() => sockets.length === 2, 'there is another connection');
  });

  it('stays after an error of a command', async (t) => {
    const { url, sockets } = await scripted(t, ['-ERR wrong number of arguments\r\n']);
    const link = openRedis({ url, prefix: 'p', timeout_ms: 1_000, on_failure: 'local' })!;
    t.after(() => link.close());
    await link.reached(5_000);
    for (let i = 0; i < 3; i++) await assert.rejects(link.probe(), /wrong number/);
    assert.equal(sockets.length, 1);
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import { capacityOf } from '../../bench/gateway/capacity.ts';
import { figuresOf, type Row } from '../../bench/gateway/figures.ts';
import { type Measured, runLoad } from '../../bench/gateway/loads.ts';
import { usageOf } from '../../bench/gateway/proc.ts';
import { ANSWER, chunk, DONE, now } from '../../bench/gateway/shapes.ts';
import type { TargetName } from '../../bench/gateway/targets.ts';
import { quantile } from '../../bench/statistics.ts';

describe('a quantile', () => {
  test('is a value that was measured, by nearest rank', () => {
    assert.equal(quantile([5, 1, 3, 2, 4], 0.5), 3);
    assert.equal(quantile([4, 3, 2, 1], 0.5), 2);
    assert.equal(quantile([1, 2, 3], 1), 3);
    const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
    assert.equal(quantile(hundred, 0.99), 99);
  });

  test('needs values and a share', () => {
    assert.throws(() => quantile([], 0.5), /no values/);
    assert.throws(() => quantile([1], 0), /got 0/);
  });
});

describe('figures of the gateway bench', () => {
  const row = (round: number, target: TargetName, which: string, measured: Measured): Row => ({
    round,
    target,
    case: which,
    measured,
    cpu_us: target === 'gateway' ? 100 : 50,
    rss_mb: 10 * round,
  });
  const closed = (rps: number, failed = 0): Measured => ({ kind: 'closed', requests: 100, failed, rps });
  const single = (p50_ms: number): Measured => ({ kind: 'single', requests: 9, failed: 0, p50_ms, p99_ms: 2 * p50_ms });

  test('compare within a round and take the median', () => {
    const figures = figuresOf([
      row(1, 'direct', 'single', single(1)),
      row(1, 'gateway', 'single', single(1.5)),
      row(2, 'direct', 'single', single(10)),
      row(2, 'gateway', 'single', single(10.25)),
      row(3, 'direct', 'single', single(2)),
      row(3, 'gateway', 'single', single(2.125)),
      row(1, 'gateway', 'closed', closed(100)),
      row(1, 'vllm-router', 'closed', closed(50)),
      row(2, 'gateway', 'closed', closed(10)),
      row(2, 'vllm-router', 'closed', closed(20)),
    ]);
    assert.equal(figures['added_p50_ms'], 0.25);
    assert.equal(figures['added_p99_ms'], 0.5);
    assert.equal(figures['rps_ratio_vllm_router'], 1.25);
    assert.equal(figures['cpu_ratio_vllm_router'], 0.5);
    assert.equal(figures['rss_mb'], 30);
  });

  test('leave out what failed', () => {
    const figures = figuresOf([
      row(1, 'gateway', 'closed', closed(100)),
      row(1, 'nginx', 'closed', closed(1, 1)),
      row(2, 'gateway', 'closed', closed(100)),
      row(2, 'nginx', 'closed', closed(200)),
    ]);
    assert.equal(figures['rps_ratio_nginx'], 0.5);
    assert.equal(figures['rps'], 100);
    assert.equal('added_p50_ms' in figures, false);
  });
});

describe('the most events a second', () => {
  const passing = (most: number, p99: (rate: number) => number) => async (rate: number) => ({
    measured: {
      ...{ kind: 'streams' as const, requests: 1, failed: 0, events: Math.min(rate, most), events_per_second: 0 },
      ...{ event_p50_ms: 1, event_p99_ms: p99(rate), event_max_ms: 1, first_event_p50_ms: 1, first_event_p99_ms: 1 },
    },
    expected: rate,
  });
  const direct = passing(40_000, () => 3);

  test('are those that all come, and in time', async () => {
    assert.deepEqual(
      await capacityOf(
        direct,
        passing(12_500, () => 4),
      ),
      {
        ...{ eventsPerSecond: 12_500, endedBy: 'target' },
      },
    );
    assert.deepEqual(
      await capacityOf(
        direct,
        passing(60_000, (rate) => rate / 1000),
      ),
      {
        ...{ eventsPerSecond: 20_000, endedBy: 'target' },
      },
    );
    assert.equal(
      (
        await capacityOf(
          direct,
          passing(100, () => 1),
        )
      ).eventsPerSecond,
      0,
    );
  });

  test('are no more than the load generator can send', async () => {
    assert.deepEqual(
      await capacityOf(
        direct,
        passing(60_000, () => 4),
      ),
      {
        ...{ eventsPerSecond: 40_000, endedBy: 'load generator' },
      },
    );
  });
});

describe('the load generator', () => {
  const serve = async (handler: RequestListener) => {
    const server = createServer(handler).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return { url, headers: {}, close: () => void server.close().closeAllConnections() };
  };

  test('reads the time in each event, also when pieces split events', async (t) => {
    const target = await serve((request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const text = chunk(now() - 5_000) + chunk(now() + 60e6) + DONE;
        response.write(text.slice(0, 100), () => setTimeout(() => response.end(text.slice(100)), 5));
      });
    });
    t.after(target.close);
    const measured = await runLoad(target, { kind: 'streams', streams: 3, events: 2, perSecond: 50 });
    assert.ok(measured.kind === 'streams');
    assert.equal(measured.events, 6);
    assert.equal(measured.failed, 0);
    assert.ok(measured.first_event_p50_ms >= 5, `${measured.first_event_p50_ms}`);
  });

  test('counts answers that are not 200 as failed, and times from when a request was due', async (t) => {
    let answers = 0;
    const target = await serve((request, response) => {
      request.resume().on('end', () => {
        answers += 1;
        const status = answers % 2 === 0 ? 200 : 500;
        setTimeout(() => response.writeHead(status).end(ANSWER), 20);
      });
    });
    t.after(target.close);
    const measured = await runLoad(target, { kind: 'open', rate: 50, seconds: 0.4 });
    assert.ok(measured.kind === 'open');
    assert.ok(measured.requests <= 20 && measured.requests + measured.failed >= 20, JSON.stringify(measured));
    assert.ok(measured.failed > 0 && measured.p50_ms >= 20, JSON.stringify(measured));
  });
});

test('the use of a process counts its memory and time', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
  const usage = usageOf(process.pid);
  assert.ok(usage.rssBytes > 10 * 2 ** 20, `${usage.rssBytes}`);
  assert.ok(usage.cpuSeconds > 0);
});

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterEach, describe, test } from 'node:test';
import { ask } from '../../bench/ask.ts';
import { makeProgram } from '../../model/task.ts';
import { ROOT } from '../../scripts/processes.ts';
import { eventually, isAlive, MAX_TOKENS } from './harness.ts';

const FREE_PORTS = {
  CRYSTALKV_ENGINE_PORT: '0',
  CRYSTALKV_GATEWAY_PORT: '0',
  CRYSTALKV_POLICY_SERVICE_PORT: '0',
  CRYSTALKV_POLICY_SERVICE_METRICS_PORT: '0',
};

interface Run {
  child: ChildProcess;
  output(): string;
  /** Resolves with the exit code when the program has ended. */
  ended: Promise<number | null>;
  /** The processes it has started: the three programs. */
  programs(): { pid: number; name: string }[];
}

describe('make run', () => {
  const runs: Run[] = [];
  afterEach(async () => {
    for (const { child, ended } of runs.splice(0)) {
      child.kill('SIGTERM');
      await ended;
    }
  });

  function start(env: Readonly<Record<string, string>> = FREE_PORTS): Run {
    const child = spawn(process.execPath, ['scripts/run.ts'], { cwd: ROOT, env: { ...process.env, ...env } });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    const run: Run = {
      child,
      output: () => output,
      ended: once(child, 'close').then(([code]) => code as number | null),
      programs: () => childrenOf(child.pid as number),
    };
    runs.push(run);
    return run;
  }

  const untilReady = (run: Run) =>
    eventually('the last line of the welcome', async () => {
      assert.equal(run.child.exitCode, null, run.output());
      return run.output().includes('Ctrl-C stops everything.') ? true : undefined;
    });
  const untilGone = (programs: { pid: number }[]) =>
    eventually('the end of the programs', async () => {
      const alive = await Promise.all(programs.map(({ pid }) => isAlive(pid)));
      return alive.includes(true) ? undefined : true;
    });

  test('answers, says how to use it, and leaves no process after Ctrl-C', async () => {
    const run = start();
    await untilReady(run);
    const url = /The endpoint is (http:\S+)\/v1/.exec(run.output())?.[1];
    assert.ok(url);
    assert.match(run.output(), /curl -N http:.*\/v1\/chat\/completions/);
    assert.match(run.output(), /"crystal_kv": \{"profile": "crystal", "budget_tokens": 96\}/);
    const answer = await ask(url, makeProgram(3, 8), { maxTokens: MAX_TOKENS });
    assert.ok(answer.exact);
    const programs = run.programs();
    assert.deepEqual(programs.map(({ name }) => name).sort(), ['engine', 'gateway', 'policy-service']);
    run.child.kill('SIGINT');
    assert.equal(await run.ended, 0, run.output());
    for (const { pid } of programs) assert.equal(await isAlive(pid), false);
  });

  test('runs the curl line that it prints, with eviction too', async () => {
    const run = start();
    await untilReady(run);
    const body = /-d '(\{.*\})'/.exec(run.output())?.[1];
    const url = /curl -N (http:\S+)/.exec(run.output())?.[1];
    assert.ok(body && url);
    for (const extra of [{}, { crystal_kv: { profile: 'crystal', budget_tokens: 96 } }]) {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ...JSON.parse(body), ...extra }),
      });
      assert.equal(response.status, 200);
      assert.match(await response.text(), /data: \[DONE\]\s*$/);
    }
  });

  test('stops everything and says which part has died', async () => {
    const run = start();
    await untilReady(run);
    const programs = run.programs();
    const engine = programs.find(({ name }) => name === 'engine');
    assert.ok(engine);
    process.kill(engine.pid, 'SIGKILL');
    assert.equal(await run.ended, 1);
    assert.match(run.output(), /engine was ended by SIGKILL/);
    await untilGone(programs);
  });

  test('leaves no process when it is killed itself', async () => {
    const run = start();
    await untilReady(run);
    const programs = run.programs();
    assert.equal(programs.length, 3);
    run.child.kill('SIGKILL');
    await untilGone(programs);
  });

  test('names the port that is taken and its option, and starts nothing', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    try {
      const run = start({ ...FREE_PORTS, CRYSTALKV_GATEWAY_PORT: `${port}` });
      assert.equal(await run.ended, 1);
      assert.match(run.output(), new RegExp(`gateway.port: port ${port} .* in use.*CRYSTALKV_GATEWAY_PORT`));
      assert.doesNotMatch(run.output(), /starting/);
    } finally {
      server.close();
    }
  });

  test('refuses a wrong option before it starts anything', async () => {
    const run = start({ ...FREE_PORTS, CRYSTALKV_ENGINE_BLOCK_SIZE: '7' });
    assert.equal(await run.ended, 1);
    assert.match(run.output(), /engine.block_size is 7.*CRYSTALKV_ENGINE_BLOCK_SIZE/);
  });
});

function childrenOf(parent: number): { pid: number; name: string }[] {
  return execFileSync('ps', ['-o', 'pid=,args=', '--ppid', `${parent}`], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((line) => ({ pid: Number.parseInt(line, 10), name: /(\S+)\/main\.ts/.exec(line)?.[1] ?? line }));
}

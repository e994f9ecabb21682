import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterEach, describe, test } from 'node:test';
import { ask } from '../../bench/ask.ts';
import { makeProgram } from '../../model/task.ts';
import { type Child, outputOf, startChild } from '../../scripts/child.ts';
import { OFFERED_PROGRAMS } from '../../scripts/first-asked.ts';
import { ROOT } from '../../scripts/processes.ts';
import { until } from '../../scripts/until.ts';
import { isAlive } from '../support/is-alive.ts';
import { MAX_TOKENS, PATIENCE } from './harness.ts';

/** What the welcome asks, with its budget. */
const [FIRST] = OFFERED_PROGRAMS;
const BUDGET = FIRST.budgetTokens;

const FREE_PORTS = {
  CRYSTALKV_ENGINE_PORT: '0',
  CRYSTALKV_GATEWAY_PORT: '0',
  CRYSTALKV_POLICY_SERVICE_PORT: '0',
  CRYSTALKV_POLICY_SERVICE_METRICS_PORT: '0',
};

interface Run {
  child: Child;
  output(): string;
  /** The processes it has started: the three programs, and what ends them when it is gone itself. */
  programs(): { pid: number; name: string }[];
}

describe('make run', () => {
  const runs: Run[] = [];
  afterEach(async () => {
    for (const { child } of runs.splice(0)) await child.stop(60_000);
  });

  async function start(env: Readonly<Record<string, string>> = FREE_PORTS): Promise<Run> {
    const options = { cwd: ROOT, env: { ...process.env, ...env } };
    const child = await startChild([process.execPath, 'scripts/run.ts'], options);
    const output = outputOf(child);
    const run: Run = { child, output: () => output.all, programs: () => childrenOf(child.pid) };
    runs.push(run);
    return run;
  }

  const exitCode = async (run: Run) => (await run.child.closed).code;
  const untilReady = (run: Run) => {
    const ready = () => {
      assert.equal(run.child.exit(), undefined, run.output());
      return run.output().includes('Ctrl-C stops everything.');
    };
    return until(ready, 'the last line of the welcome', { ...PATIENCE, progress: () => run.output().length });
  };
  const untilGone = (programs: { pid: number }[]) =>
    until(() => !programs.some(({ pid }) => isAlive(pid)), 'the programs end', PATIENCE);

  test('answers, says how to use it, and leaves no process after Ctrl-C', async () => {
    const run = await start();
    await untilReady(run);
    const url = /The endpoint is (http:\S+)\/v1/.exec(run.output())?.[1];
    assert.ok(url);
    assert.match(run.output(), /curl -N http:.*\/v1\/chat\/completions/);
    assert.match(run.output(), new RegExp(`"crystal_kv": \\{"profile": "crystal", "budget_tokens": ${BUDGET}\\}`));
    const answer = await ask(url, makeProgram(3, 8), { maxTokens: MAX_TOKENS });
    assert.ok(answer.exact);
    const programs = run.programs();
    assert.deepEqual(programs.map(({ name }) => name).sort(), ['engine', 'gateway', 'policy-service', 'watchdog']);
    for (const { name, pid } of programs.filter((program) => program.name !== 'watchdog'))
      assert.match(run.output(), new RegExp(`processes .*${name} ${pid}\\b.*kill -HUP`));
    run.child.signal('SIGINT');
    assert.equal(await exitCode(run), 0, run.output());
    await untilGone(programs);
  });

  test('runs the curl line that it prints, with eviction too', async () => {
    const run = await start();
    await untilReady(run);
    const body = /-d '(\{.*\})'/.exec(run.output())?.[1];
    const url = /curl -N (http:\S+)/.exec(run.output())?.[1];
    assert.ok(body && url);
    for (const extra of [{}, { crystal_kv: { profile: 'crystal', budget_tokens: BUDGET } }]) {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ...JSON.parse(body), ...extra }),
      });
      assert.equal(response.status, 200);
      const events = await response.text();
      assert.match(events, /data: \[DONE\]\s*$/);
      const content = [...events.matchAll(/"content":"([^"]*)"/g)].map(([, piece]) => piece).join('');
      assert.equal(content.trim(), makeProgram(FIRST.seed, FIRST.lines, { form: FIRST.form }).answer);
    }
  });

  test('stops everything and says which part has died', async () => {
    const run = await start();
    await untilReady(run);
    const programs = run.programs();
    const engine = programs.find(({ name }) => name === 'engine');
    assert.ok(engine);
    process.kill(engine.pid, 'SIGKILL');
    assert.equal(await exitCode(run), 1);
    assert.match(run.output(), /engine was ended by SIGKILL/);
    await untilGone(programs);
  });

  test('leaves no process when it is killed itself', async () => {
    const run = await start();
    await untilReady(run);
    const programs = run.programs();
    assert.equal(programs.length, 4);
    run.child.signal('SIGKILL');
    await untilGone(programs);
  });

  test('names the port that is taken and its option, and starts nothing', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    try {
      const run = await start({ ...FREE_PORTS, CRYSTALKV_GATEWAY_PORT: `${port}` });
      assert.equal(await exitCode(run), 1);
      assert.match(run.output(), new RegExp(`gateway.port: port ${port} .* in use.*CRYSTALKV_GATEWAY_PORT`));
      assert.doesNotMatch(run.output(), /starting/);
    } finally {
      server.close();
    }
  });

  test('refuses a wrong option before it starts anything', async () => {
    const run = await start({ ...FREE_PORTS, CRYSTALKV_ENGINE_BLOCK_SIZE: '7' });
    assert.equal(await exitCode(run), 1);
    assert.match(run.output(), /engine.block_size is 7.*CRYSTALKV_ENGINE_BLOCK_SIZE/);
  });
});

function childrenOf(parent: number): { pid: number; name: string }[] {
  return execFileSync('ps', ['-o', 'pid=,args=', '--ppid', `${parent}`], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((line) => ({ pid: Number.parseInt(line, 10), name: /([\w-]+)(?:\/main\.ts|\.sh)/.exec(line)?.[1] ?? line }));
}

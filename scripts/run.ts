/** Starts the whole system on this machine; see `--help`. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeProgram } from '../model/task.ts';
import { type Addresses, PARTS, partSpec } from './cluster.ts';
import { runCommandLine } from './command-line.ts';
import { describeExit, type RunningProcess, startProcess, waitUntilReady } from './processes.ts';
import { createProgress } from './progress.ts';
import { checkPorts, readSettings } from './run-settings.ts';
import { StopSignal } from './stop-signal.ts';

const READY_MS = 60_000;
/** Longer than a program takes to let running answers end. */
const STOP_MS = 15_000;

await runCommandLine({
  name: 'run',
  about: `Starts engine, policy service and gateway, waits until all are ready and says how to use them.
Ctrl-C stops all three; a second Ctrl-C ends them by force.`,
  options: {
    config: {
      type: 'string',
      value: 'FILE',
      help: 'configuration file (default: CRYSTALKV_CONFIG, or crystal-kv.yaml when it exists)',
    },
  },
  notes:
    'Environment variables override the file: see `node_modules/.bin/node engine/main.ts --help`, and likewise gateway and policy-service.',
  run: ({ config }) => runSystem(config),
});
process.exit();

async function runSystem(config: string | undefined): Promise<void> {
  const stop = new StopSignal();
  const settings = await readSettings(config);
  await checkPorts(settings.listeners);
  const logFolder = mkdtempSync(join(tmpdir(), 'crystal-kv-'));
  const children: RunningProcess[] = [];
  try {
    for (const part of PARTS) {
      stop.signal.throwIfAborted();
      const spec = partSpec(part, settings.addresses, { configFile: config, env: settings.env, logFolder });
      children.push(await startProcess(spec));
    }
    await waitForAll(children, stop.signal);
    process.stdout.write(welcome(settings.addresses, logFolder));
    const died = await Promise.race([stop.requested, ...children.map((child) => child.exited.then(() => child))]);
    if (died !== undefined) throw await describeExit(died);
  } catch (error) {
    if (!stop.signal.aborted) {
      await stopAll(children, stop);
      throw error;
    }
  }
  process.stdout.write('\nstopping ...\n');
  await stopAll(children, stop);
  process.stdout.write('stopped\n');
}

async function waitForAll(children: readonly RunningProcess[], signal: AbortSignal): Promise<void> {
  process.stdout.write(`starting ${children.map(({ name }) => name).join(', ')}\n`);
  const progress = createProgress('ready', children.length);
  try {
    // The first problem ends the waiting: the others may be waiting for the part that has died.
    await Promise.all(
      children.map(async (child) => {
        await waitUntilReady(child, READY_MS, signal);
        progress.done(child.name);
      }),
    );
  } finally {
    progress.close();
  }
}

async function stopAll(children: readonly RunningProcess[], stop: StopSignal): Promise<void> {
  const force = () => {
    for (const child of children) child.signal('SIGKILL');
  };
  stop.onSecond(force);
  // The gateway first: what it still serves needs the others.
  for (const child of [...children].reverse()) await child.stop(STOP_MS);
}

function welcome(addresses: Addresses, logFolder: string): string {
  const { prompt } = makeProgram(1, 12);
  const body = { model: 'crystal-mini', messages: [{ role: 'user', content: prompt }] };
  const request = (fields: object) => `curl -N ${addresses.gatewayUrl}/v1/chat/completions \\
    -H 'content-type: application/json' \\
    -d '${JSON.stringify(fields)}'`;
  return `
The endpoint is ${addresses.gatewayUrl}/v1 (OpenAI API, model crystal-mini). Ask it to run a small program:

  ${request({ ...body, stream: true })}

Watch it think, and what it forgets, at ${addresses.gatewayUrl}/ui

To try eviction, add "crystal_kv": {"profile": "crystal", "budget_tokens": 96} to the body: at most 96 thinking tokens stay.

  savings   ${addresses.policyMetricsUrl}/metrics (crystalkv_blocks_evicted_total, crystalkv_blocks_resident, ...)
  engine    ${addresses.engineUrl}/metrics
  gateway   ${addresses.gatewayUrl}/metrics
  logs      ${logFolder}

Ctrl-C stops everything.
`;
}

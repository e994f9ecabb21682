/** Starts the whole system on this machine; see `--help`. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PARTS, partSpec } from './cluster.ts';
import { namesOf, runCommandLine } from './command-line.ts';
import { describeExit, type RunningProcess, startProcess, waitUntilReady } from './processes.ts';
import { createProgress } from './progress.ts';
import { RUN_MODEL_NAMES, RUN_MODELS, type RunModel, type RunModelName } from './run-models.ts';
import { checkPorts, type RunSettings, readSettings } from './run-settings.ts';
import { StopSignal } from './stop-signal.ts';

/** The English model's weights take seconds to read, on a busy machine many. */
const READY_MS = 180_000;
/** Longer than a program takes to let running answers end. */
const STOP_MS = 15_000;

await runCommandLine({
  name: 'run',
  about: `Starts engine, policy service and gateway, waits until all are ready and says how to use them.
Ctrl-C stops all three; a second Ctrl-C ends them by force.`,
  options: {
    model: {
      type: 'string',
      value: 'NAME',
      default: 'crystal-mini' satisfies RunModelName,
      help: `crystal-mini (default), or english: SmolLM2-135M, taught to reason in English; fetches 130 MB the first time`,
    },
    config: {
      type: 'string',
      value: 'FILE',
      help: 'configuration file (default: CRYSTALKV_CONFIG, or crystal-kv.yaml when it exists)',
    },
  },
  notes:
    'Environment variables override the file: see `node_modules/.bin/node engine/main.ts --help`, and likewise gateway and policy-service.',
  run: ({ model, config }) => runSystem(namesOf('model', [model], RUN_MODEL_NAMES)[0]!, config),
});
process.exit();

async function runSystem(name: RunModelName, config: string | undefined): Promise<void> {
  const stop = new StopSignal();
  const model: RunModel = RUN_MODELS[name];
  const settings = await readSettings(config);
  await checkPorts(settings.listeners);
  const env = await environmentOf(model, settings.env, stop.signal);
  if (env === undefined) {
    process.stdout.write('\nstopped; nothing was started\n');
    return;
  }
  const logFolder = mkdtempSync(join(tmpdir(), 'crystal-kv-'));
  const children: RunningProcess[] = [];
  try {
    for (const part of PARTS) {
      stop.signal.throwIfAborted();
      const spec = partSpec(part, settings.addresses, { configFile: config, env, logFolder });
      children.push(await startProcess(spec));
    }
    await waitForAll(children, stop.signal);
    process.stdout.write(welcome(name, model, settings, { children, logFolder }));
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

/** Of the three programs; undefined: it was stopped while the model was fetched. */
async function environmentOf(
  model: RunModel,
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<NodeJS.ProcessEnv | undefined> {
  try {
    const folder = await model.folder(signal);
    return folder === undefined ? env : { ...model.settings, ...env, CRYSTALKV_ENGINE_MODEL: folder };
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
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

function welcome(
  name: string,
  model: RunModel,
  { addresses, keys }: RunSettings,
  { children, logFolder }: { children: readonly RunningProcess[]; logFolder: string },
): string {
  const body = { model: name, messages: model.messages };
  const key = keys ? `\n    -H "authorization: Bearer $KEY" \\` : '';
  const create = keys ? '  KEY=$(npm run --silent keys -- create me | head -n 1)\n' : '';
  const request = (fields: object) => `curl -N ${addresses.gatewayUrl}/v1/chat/completions \\
    -H 'content-type: application/json' \\${key}
    -d '${JSON.stringify(fields)}'`;
  const eviction = JSON.stringify({ profile: 'crystal', budget_tokens: model.budgetTokens }).replaceAll(
    /([:,])/g,
    '$1 ',
  );
  return `
The endpoint is ${addresses.gatewayUrl}/v1 (OpenAI API, model ${name}). Ask it to ${model.task}:

${create}  ${request({ ...body, stream: true })}

Watch it think, and what it forgets, at ${addresses.gatewayUrl}/ui

To try eviction, add "crystal_kv": ${eviction} to the body: at most ${model.budgetTokens} tokens of the output stay.

  savings   ${addresses.policyMetricsUrl}/metrics (crystalkv_blocks_evicted_total, crystalkv_blocks_resident, ...)
  engine    ${addresses.engineUrl}/metrics
  gateway   ${addresses.gatewayUrl}/metrics
  logs      ${logFolder}
  processes ${children.map((child) => `${child.name} ${child.pid}`).join(', ')}; kill -HUP makes one reload its configuration

Ctrl-C stops everything.
`;
}

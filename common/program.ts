import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { z } from 'zod';
import { ConfigError, loadSection, optionsOf, readConfigFile, type Section, withoutSecrets } from './config.ts';
import { takeHangUps } from './hang-up.ts';

/** What a program's `main.ts` declares; everything else is derived. */
export interface Program<T> {
  name: string;
  summary: string;
  sections: { [K in keyof T]: { section: Section; schema: z.ZodType<T[K]> } };
  /** Options of the command line that stand for an environment variable: `workers` for `--workers N`. */
  flags?: Readonly<Record<string, string>>;
  /** What stops it instead of SIGINT and SIGTERM, which are then left to its parent: they may reach both. */
  stopWhen?: Promise<void> | undefined;
  /** What can be said of a configuration without starting with it, beside its schema. Throws an error that names it. */
  check?(config: T): void;
  start(config: T): Promise<Running<T>>;
}

/** A program that runs. */
export interface Running<T> {
  /** Resolves when nothing of it is left. */
  stop(): Promise<void>;
  /** Takes another configuration, which `read` gives or throws a ConfigError. Without this SIGHUP ends the program. */
  reload?(read: () => T): void;
}

const DEFAULT_FILE = 'crystal-kv.yaml';

/**
 * Runs a program to its end: reads arguments, file and environment once, starts it, stops it on SIGINT or SIGTERM.
 * A second signal ends the process at once. Exit codes: 0 stopped, 1 failed, 2 unusable arguments or configuration.
 */
export async function runProgram<T>(program: Program<T>): Promise<void> {
  let config: T;
  let read: () => T;
  const flags = Object.entries(program.flags ?? {});
  try {
    const { values } = parseArgs({
      options: {
        config: { type: 'string' },
        check: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
        ...Object.fromEntries(flags.map(([flag]) => [flag, { type: 'string' } as const])),
      },
    });
    if (values.help) {
      process.stdout.write(helpText(program));
      return;
    }
    const env = { ...process.env };
    for (const [flag, name] of flags)
      env[name] = ((values as Record<string, unknown>)[flag] as string | undefined) ?? env[name];
    read = () => loadProgramConfig(program, values.config, env);
    config = read();
    if (values.check) {
      checkConfig(program, config);
      return;
    }
  } catch (error) {
    if (!(error instanceof ConfigError) && !isArgumentError(error)) throw error;
    process.stderr.write(`${program.name}: ${error.message}${isArgumentError(error) ? '; see --help' : ''}\n`);
    process.exitCode = 2;
    return;
  }
  // A reader of what is said before has left: that is no reason to end.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  let running: Running<T>;
  try {
    running = await program.start(config);
  } catch (error) {
    process.stderr.write(`${program.name}: ${(error as Error).message}\n`);
    process.exit(1);
  }
  const { reload } = running;
  if (reload !== undefined) takeHangUps(() => reload(read));
  await new Promise<void>((resolve) => {
    let signals = 0;
    void program.stopWhen?.then(resolve);
    const onSignal = () => {
      if (program.stopWhen !== undefined) return;
      signals += 1;
      if (signals === 1) resolve();
      else process.exit(130);
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });
  if (reload !== undefined) takeHangUps(() => {});
  await running.stop();
  process.exit(0);
}

/** Prints the configuration, for programs, and what is to be said of it, for people. Throws ConfigError. */
function checkConfig<T>(program: Program<T>, config: T): void {
  try {
    program.check?.(config);
  } catch (error) {
    throw new ConfigError((error as Error).message);
  }
  process.stdout.write(`${JSON.stringify(printable(program, config), null, 2)}\n`);
  process.stderr.write(`${program.name}: configuration is valid\n`);
}

/** The program's sections from `file` (default: crystal-kv.yaml, or CRYSTALKV_CONFIG, when it exists) and `env`. */
export function loadProgramConfig<T>(
  program: Pick<Program<T>, 'sections'>,
  file: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): T {
  const path = file ?? env['CRYSTALKV_CONFIG'] ?? (existsSync(DEFAULT_FILE) ? DEFAULT_FILE : undefined);
  const content = readConfigFile(path);
  const config: Partial<T> = {};
  for (const key in program.sections) {
    const { section, schema } = program.sections[key];
    config[key] = loadSection(section, schema, content, env);
  }
  return Object.freeze(config) as T;
}

/** The configuration by section, without its secrets. */
function printable<T>(program: Program<T>, config: T): Record<string, unknown> {
  const printed: Record<string, unknown> = {};
  for (const key in program.sections) {
    const { section, schema } = program.sections[key];
    printed[section] = withoutSecrets(config[key], optionsOf(section, schema));
  }
  return printed;
}

function helpText<T>(program: Program<T>): string {
  const lines = [
    `${program.name}: ${program.summary}`,
    '',
    'Options',
    '  --config FILE   configuration file (default: CRYSTALKV_CONFIG, or crystal-kv.yaml when it exists)',
    '  --check         validate and print the configuration, then exit',
    '  --help, -h      print this text, then exit',
    ...Object.entries(program.flags ?? {}).map(
      ([flag, env]) => `  ${`--${flag} VALUE`.padEnd(15)} same as ${env}=VALUE`,
    ),
  ];
  for (const key in program.sections) {
    const { section, schema } = program.sections[key];
    const options = optionsOf(section, schema);
    const star = options.some(({ fixed }) => fixed) ? '; SIGHUP reloads it; options marked * need a restart' : '';
    lines.push('', `Section ${section} (environment variables override the file${star})`);
    for (const option of options) {
      if (option.path.length === 0) continue;
      const fallback = option.fallback === undefined ? '' : ` [${JSON.stringify(option.fallback)}]`;
      const file = option.secret ? ` or ${option.env}_FILE` : '';
      lines.push(`  ${option.path.join('.')}${option.fixed ? '*' : ''}  ${option.env}${file}${fallback}`);
      if (option.description !== '') lines.push(`      ${option.description}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

function isArgumentError(error: unknown): error is Error {
  return error instanceof TypeError && String((error as { code?: unknown }).code).startsWith('ERR_PARSE_ARGS');
}

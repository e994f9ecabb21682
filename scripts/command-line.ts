import { parseArgs } from 'node:util';

/** An option of a program's command line. */
export interface OptionSpec {
  type: 'string' | 'boolean';
  multiple?: boolean;
  default?: string | boolean | string[];
  /** What stands for the value in the help: `N`, `FILE`. */
  value?: string;
  /** Further lines of it are indented like the first. */
  help: string;
}

type Options = Readonly<Record<string, OptionSpec>>;
export type Values<O extends Options> = ReturnType<typeof parseArgs<{ options: O }>>['values'];

/** A program with a command line. The options of the help derive from what it declares. */
export interface CommandLine<O extends Options> {
  /** Begins its errors. */
  name: string;
  /** What it does, for the help. */
  about: string;
  options: O;
  /** The end of the help. */
  notes?: string;
  /** Resolves with the exit code; nothing: 0. */
  run(values: Values<O>): Promise<number | undefined> | Promise<void>;
}

/** Arguments that cannot be used. The message names option, value and bounds. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

const HELP = { type: 'boolean', short: 'h', default: false } as const;

/** Runs a program. Exit codes: what it resolves with, 1 when it failed, 2 for unusable arguments. */
export async function runCommandLine<const O extends Options>(program: CommandLine<O>): Promise<void> {
  try {
    const { values } = parseArgs({ options: { ...program.options, help: HELP } });
    if ((values as { help?: boolean }).help) process.stdout.write(helpText(program));
    else process.exitCode = (await program.run(values as Values<O>)) ?? 0;
  } catch (error) {
    const isParsing = /^ERR_PARSE_ARGS/.test(String((error as { code?: unknown }).code));
    const message = error instanceof Error ? error.message : error;
    process.stderr.write(`${program.name}: ${message}${isParsing ? '; see --help' : ''}\n`);
    process.exitCode = error instanceof UsageError || isParsing ? 2 : 1;
  }
}

function helpText({ about, options, notes }: CommandLine<Options>): string {
  const all: Options = { ...options, help: { type: 'boolean', help: 'show this help' } };
  const rows = Object.entries(all).map(([name, { value, multiple, help }]) => ({
    option: `--${name}${value === undefined ? '' : ` ${value}`}`,
    text: `${help}${multiple === true ? '; may be given several times' : ''}`,
  }));
  const width = Math.max(...rows.map(({ option }) => option.length)) + 2;
  const lines = rows.map(
    ({ option, text }) => `  ${option.padEnd(width)}${text.replaceAll('\n', `\n${' '.repeat(width + 2)}`)}`,
  );
  return `${[about, '', ...lines, ...(notes === undefined ? [] : ['', notes])].join('\n')}\n`;
}

/** A whole number from a command line. Throws UsageError with the bounds. */
export function wholeNumber(option: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isInteger(value) && value >= min && value <= max) return value;
  throw new UsageError(`--${option} must be an integer from ${min} to ${max}, got "${text}"`);
}

/** The names that were given, each one of those there are; all when none was. Throws UsageError. */
export function namesOf<N extends string>(option: string, given: readonly string[], all: readonly N[]): N[] {
  const unknown = given.find((name) => !(all as readonly string[]).includes(name));
  if (unknown !== undefined) throw new UsageError(`--${option} must be one of ${all.join(', ')}, got "${unknown}"`);
  return all.filter((name) => given.length === 0 || given.includes(name));
}

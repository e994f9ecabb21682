import { readFileSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';

/** Everything that `crystal-kv.yaml` may hold at its top level. Each process parses its own sections only. */
export const SECTIONS = ['gateway', 'policy_service', 'engine', 'profiles'] as const;
export type Section = (typeof SECTIONS)[number];

/** A configuration that cannot be used. The message names option, value and bounds; one line for each problem. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** One option of a section, as `--help` and the environment know it. */
export interface Option {
  path: string[];
  env: string;
  description: string;
  fallback: unknown;
  /** Never printed (`.meta({ secret: true })`). The variable `<env>_FILE` may name a file that holds it. */
  secret: boolean;
  /** Names of members, at any depth of the value, that are never printed (`.meta({ hides: /.../ })`). */
  hides: RegExp | undefined;
  /** Read at the start only (`.meta({ fixed: true })`, here or around it): a change needs a restart. */
  fixed: boolean;
  /** A plain string: the environment's text is taken as it is. */
  text: boolean;
}

/**
 * The options of a section: the leaves of its schema. The environment variable of `engine.pool.blocks` is
 * `CRYSTALKV_ENGINE_POOL_BLOCKS`, unless the leaf's meta data names another (`.meta({ env: '...' })`).
 */
export function optionsOf(section: Section, schema: z.ZodType, path: string[] = [], isFixed = false): Option[] {
  const inner = unwrap(schema);
  const meta = schema.meta() ?? {};
  const fixed = isFixed || meta['fixed'] === true;
  if (inner instanceof z.ZodObject) {
    const shape = inner.shape as Record<string, z.ZodType>;
    return Object.entries(shape).flatMap(([key, child]) => optionsOf(section, child, [...path, key], fixed));
  }
  const derived = ['CRYSTALKV', section, ...path].join('_').toUpperCase();
  return [
    {
      path,
      env: typeof meta['env'] === 'string' ? meta['env'] : derived,
      description: meta.description ?? '',
      fallback: schema instanceof z.ZodDefault ? schema.def.defaultValue : undefined,
      secret: meta['secret'] === true,
      hides: meta['hides'] instanceof RegExp ? meta['hides'] : undefined,
      fixed,
      text: inner instanceof z.ZodString,
    },
  ];
}

function unwrap(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return unwrap(schema.unwrap() as z.ZodType);
  }
  return schema;
}

/** The parsed file: an object whose keys are sections. A missing path means an empty file. Throws ConfigError. */
export function readConfigFile(path: string | undefined): Partial<Record<Section, unknown>> {
  if (path === undefined) return {};
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ConfigError(`cannot read the config file ${path}: ${(cause as Error).message}`);
  }
  let file: unknown;
  try {
    file = parseYaml(text) ?? {};
  } catch (cause) {
    throw new ConfigError(`${path} is not valid YAML: ${(cause as Error).message}`);
  }
  if (typeof file !== 'object' || file === null || Array.isArray(file)) {
    throw new ConfigError(`${path} must hold a mapping with the keys ${SECTIONS.join(', ')}`);
  }
  const unknown = Object.keys(file).filter((key) => !(SECTIONS as readonly string[]).includes(key));
  if (unknown.length > 0) {
    throw new ConfigError(`${path}: unknown section ${unknown.join(', ')}; known: ${SECTIONS.join(', ')}`);
  }
  return file;
}

/**
 * One section, parsed and frozen. `env` overrides the file: a value that is not a plain string is read as a YAML scalar
 * or flow list, and goes through the same schema. Throws ConfigError that names option, value, bounds and where the value came from.
 */
export function loadSection<S extends z.ZodType>(
  section: Section,
  schema: S,
  file: Partial<Record<Section, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
): z.output<S> {
  const input: unknown = structuredClone(file[section]) ?? {};
  const fromEnv = new Map<string, string>();
  const options = optionsOf(section, schema);
  refuseUnknown(section, options, env);
  for (const option of options) {
    const given = fromEnvironment(option, env);
    if (given === undefined) continue;
    const { text, variable } = given;
    fromEnv.set(option.path.join('.'), variable);
    setAt(input, option.path, option.text ? text : readScalar(text));
  }
  const result = schema.safeParse(input);
  if (result.success) return deepFreeze(result.data);
  const lines = result.error.issues.map((issue) => {
    const path = issue.path.map(String);
    const source = fromEnv.get(path.join('.'));
    const at = [section, ...path].join('.');
    // what stands under an unknown key may be anything, a secret too
    if (issue.code === 'unrecognized_keys') return `${at}: ${issue.message}`;
    const value = JSON.stringify(withoutSecrets(getAt(input, path), options, path));
    return `${at} is ${value ?? 'missing'}: ${issue.message}${source === undefined ? '' : ` (from ${source})`}`;
  });
  throw new ConfigError(lines.join('\n'));
}

/** Variables that begin like those of a section and are none of it: the vLLM plugin's. */
const OF_OTHERS = new Set(['CRYSTALKV_ENGINE_ID']);

/** Throws ConfigError for variables that are named like options of the section, and are none: they were misspelt. */
function refuseUnknown(
  section: Section,
  options: readonly Option[],
  env: Readonly<Record<string, string | undefined>>,
) {
  const known = new Set(options.flatMap(({ env: name, secret }) => (secret ? [name, `${name}_FILE`] : [name])));
  const prefix = `CRYSTALKV_${section.toUpperCase()}_`;
  const unknown = Object.keys(env).filter(
    (name) => name.startsWith(prefix) && env[name] !== undefined && !known.has(name) && !OF_OTHERS.has(name),
  );
  if (unknown.length > 0) {
    throw new ConfigError(`${unknown.join(', ')}: ${section} has no such option; --help lists all of them`);
  }
}

/** What the environment says of an option, and by which variable. Throws ConfigError for a file that cannot be read. */
function fromEnvironment(
  { env: name, secret }: Option,
  env: Readonly<Record<string, string | undefined>>,
): { text: string; variable: string } | undefined {
  const text = env[name];
  const variable = `${name}_FILE`;
  const file = secret ? env[variable] : undefined;
  if (file === undefined || file === '') return text === undefined ? undefined : { text, variable: name };
  if (text !== undefined) throw new ConfigError(`${name} and ${variable} are both set: set one of them`);
  try {
    return { text: readFileSync(file, 'utf8').trim(), variable };
  } catch (cause) {
    throw new ConfigError(`${variable} is ${JSON.stringify(file)}, which cannot be read: ${(cause as Error).message}`);
  }
}

/** A copy of a value at `path` of a section, in which secrets and what URLs hold of users are dots. */
export function withoutSecrets(value: unknown, options: readonly Option[], path: readonly string[] = []): unknown {
  const secret = options.some((option) => option.secret && option.path.join('.') === path.join('.'));
  if (secret && value !== undefined) return '...';
  const hides = options.find(
    (option) => option.hides !== undefined && option.path.every((part, index) => path[index] === part),
  )?.hides;
  if (hides !== undefined) return path.some((part) => hides.test(part)) ? '...' : withoutMembers(value, hides);
  if (typeof value === 'string') return withoutPassword(value);
  if (Array.isArray(value)) return value.map((item) => withoutSecrets(item, options, path));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => [key, withoutSecrets(child, options, [...path, key])]),
  );
}

/** A URL may hold a user's name and password. */
const withoutPassword = (text: string): string => text.replace(/(\w:\/\/)[^/?#\s]*@/g, '$1...@');

function withoutMembers(value: unknown, hides: RegExp): unknown {
  if (typeof value === 'string') return withoutPassword(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => withoutMembers(item, hides));
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => [key, hides.test(key) ? '...' : withoutMembers(child, hides)]),
  );
}

function readScalar(text: string): unknown {
  if (text === '') return '';
  try {
    return parseYaml(text);
  } catch {
    return text;
  }
}

export function setAt(target: unknown, path: string[], value: unknown): void {
  let node = target as Record<string, unknown>;
  for (const key of path.slice(0, -1)) {
    const next = node[key];
    if (typeof next !== 'object' || next === null) node[key] = {};
    node = node[key] as Record<string, unknown>;
  }
  const last = path.at(-1);
  if (last !== undefined) node[last] = value;
}

export function getAt(target: unknown, path: string[]): unknown {
  return path.reduce<unknown>((node, key) => (node as Record<string, unknown> | undefined)?.[key], target);
}

export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const child of Object.values(value)) deepFreeze(child);
  }
  return value;
}

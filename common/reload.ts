import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { deepFreeze, getAt, optionsOf, type Section, setAt } from './config.ts';
import type { Logger } from './logger.ts';

/** A changed section as a running program may take it. */
export interface Reloaded<C> {
  /** The new section, frozen, in which options that are fixed are as they were. */
  config: C;
  /** The fixed options that have changed: `keys.store` and so on. They need a restart. */
  needRestart: string[];
}

/** Options say in the schema that they are read at the start only: `.meta({ fixed: true })`, for all that is below too. */
export function takeOver<S extends z.ZodType>(
  section: Section,
  schema: S,
  current: z.output<S>,
  next: z.output<S>,
): Reloaded<z.output<S>> {
  const config: unknown = structuredClone(next);
  const needRestart: string[] = [];
  for (const { path, fixed } of optionsOf(section, schema)) {
    if (!fixed) continue;
    const held = getAt(current, path);
    if (isDeepStrictEqual(held, getAt(next, path))) continue;
    setAt(config, path, held);
    needRestart.push(path.join('.'));
  }
  return { config: deepFreeze(config as z.output<S>), needRestart };
}

/** The fixed options of a section; where all of a group are, the group alone. */
export function fixedOptions(section: Section, schema: z.ZodType): string[] {
  const options = optionsOf(section, schema);
  const names = options.flatMap(({ path, fixed }) => {
    if (!fixed) return [];
    const isWhole = (length: number) =>
      options.every((other) => other.fixed || path.slice(0, length).some((part, at) => other.path[at] !== part));
    const length = path.findIndex((_, at) => isWhole(at + 1)) + 1;
    return path.slice(0, length).join('.');
  });
  return [...new Set(names)];
}

/** Says that a configuration was taken over, and what of it waits for a restart. */
export function logReload(logger: Logger, needRestart: readonly string[], details: Readonly<Record<string, unknown>>) {
  if (needRestart.length > 0) logger.warn({ options: needRestart }, 'these options need a restart');
  logger.info(details, 'configuration reloaded');
}

/** Says that it was not. */
export function logRefusedReload(logger: Logger, error: Error): void {
  logger.error({ reason: error.message }, 'cannot reload the configuration; the old one stays in use');
}

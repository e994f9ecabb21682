import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { ROOT } from '../../scripts/processes.ts';

/** A service of docker-compose.yml, as far as the tests read it. */
export interface Service {
  image: string;
  build?: { dockerfile: string; target?: string; args?: Record<string, string> };
  command?: string | string[];
  environment?: Record<string, string>;
  profiles?: string[];
  ports?: string[];
  volumes?: string[];
  networks?: string[] | Record<string, { aliases?: string[] }>;
  depends_on?: Record<string, { condition: string; required?: boolean }>;
  healthcheck?: { test?: string[]; disable?: boolean };
  read_only?: boolean;
  cap_drop?: string[];
  security_opt?: string[];
  user?: string;
  deploy?: { resources?: { limits?: { memory?: string; pids?: number } } };
}

export interface Compose {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
}

/** The committed .env. */
export function committedEnv(): Record<string, string> {
  const lines = readFileSync(join(ROOT, '.env'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
  );
}

/** docker-compose.yml with its variables replaced, as Compose does before it looks at the schema. */
export function loadCompose(env: Readonly<Record<string, string>> = committedEnv()): Compose {
  return interpolate(parse(readFileSync(join(ROOT, 'docker-compose.yml'), 'utf8'), { merge: true }), env) as Compose;
}

/** `$VAR`, `${VAR}` and `${VAR:-default}` in every text; `$$` is a dollar sign. Anything else is refused. */
function interpolate(value: unknown, env: Readonly<Record<string, string>>): unknown {
  if (Array.isArray(value)) return value.map((item) => interpolate(item, env));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, child]) => [key, interpolate(child, env)]));
  }
  if (typeof value !== 'string') return value;
  return value.replaceAll(/\$(?:(\$)|\{(\w+)(?::-([^}]*))?\}|(.))/g, (all, dollar, name, fallback, other) => {
    if (dollar !== undefined) return '$';
    if (other !== undefined) throw new Error(`not understood: ${all} in ${value}`);
    const given = env[name as string];
    return given === undefined || given === '' ? (fallback ?? '') : given;
  });
}

/** The services that `docker compose up` starts with these profiles. */
export const active = (compose: Compose, profiles: readonly string[]): [string, Service][] =>
  Object.entries(compose.services).filter(
    ([, { profiles: wanted }]) => wanted === undefined || wanted.some((profile) => profiles.includes(profile)),
  );

/** The names under which the others reach a service. */
export function namesOf(name: string, { networks }: Service): string[] {
  const aliases = networks === undefined || Array.isArray(networks) ? [] : Object.values(networks);
  return [name, ...aliases.flatMap((network) => network.aliases ?? [])];
}

import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import type { KeysConfig } from './config.ts';
import { grantsShape, type KeyEntry, KeyError, readEntry } from './entry.ts';
import { createSecret } from './secret.ts';
import type { KeyStore } from './store.ts';

const GRANTS = Object.keys(grantsShape) as (keyof typeof grantsShape)[];
const LISTS: ReadonlySet<string> = new Set(['models', 'profiles', 'modes']);
const COMMANDS = ['create', 'list', 'revoke'] as const;

/** What `npm run keys` was asked to do. */
export type KeysCommand =
  | { kind: 'help' }
  | { kind: 'create'; name: string; grants: Record<string, unknown> }
  | { kind: 'list'; json: boolean }
  | { kind: 'revoke'; idOrName: string };

export interface KeysArguments {
  command: KeysCommand;
  config: string | undefined;
}

/** Throws KeyError that says what is wrong. */
export function readArguments(args: readonly string[]): KeysArguments {
  const grantOptions = Object.fromEntries(GRANTS.map((grant) => [dashed(grant), { type: 'string' as const }]));
  let values: Record<string, string | boolean | undefined>;
  let positionals: string[];
  try {
    ({ values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        ...grantOptions,
        config: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }));
  } catch (error) {
    throw new KeyError(`${(error as Error).message.split('. ')[0]}; see --help`);
  }
  const config = values['config'] as string | undefined;
  const [verb, subject, ...more] = positionals;
  if (values['help'] === true || verb === undefined) return { command: { kind: 'help' }, config };
  if (more.length > 0) throw new KeyError(`unexpected argument ${more.join(' ')}; see --help`);
  const given = GRANTS.filter((grant) => values[dashed(grant)] !== undefined);
  if (verb !== 'create' && given.length > 0) throw new KeyError(`--${dashed(given[0] as string)} is only for create`);
  switch (verb) {
    case 'create': {
      if (subject === undefined) throw new KeyError('create needs a name for the key');
      const grants = given.map((grant) => [grant, grantValue(grant, values[dashed(grant)] as string)]);
      return { command: { kind: 'create', name: subject, grants: Object.fromEntries(grants) }, config };
    }
    case 'list':
      if (subject !== undefined) throw new KeyError('list takes no argument');
      return { command: { kind: 'list', json: values['json'] === true }, config };
    case 'revoke':
      if (subject === undefined) throw new KeyError('revoke needs the id or the name of a key');
      return { command: { kind: 'revoke', idOrName: subject }, config };
    default:
      throw new KeyError(`unknown command ${JSON.stringify(verb)}; expected one of ${COMMANDS.join(', ')}`);
  }
}

function grantValue(grant: string, text: string): unknown {
  if (LISTS.has(grant)) return text.split(',').map((part) => part.trim());
  return /^-?\d+$/.test(text) ? Number(text) : text;
}

/** Carries out a command; gives the text for standard output. Rejects with KeyError. */
export async function runCommand(
  command: Exclude<KeysCommand, { kind: 'help' }>,
  store: KeyStore,
  keys: KeysConfig,
): Promise<string> {
  switch (command.kind) {
    case 'create': {
      const { id, secret, digest } = createSecret();
      const created = new Date().toISOString();
      const entry = readEntry({ id, name: command.name, sha256: digest, created, ...command.grants }, 'the new key');
      await store.add(entry);
      const off =
        keys.store === 'off'
          ? 'The gateway does not require keys yet: gateway.keys.store is off. Set it to file.\n'
          : '';
      return `${secret}\n\nThis is the key ${entry.name} (${id}). It is shown only now; ${store.place} stores its digest.\n${off}`;
    }
    case 'list': {
      const loaded = await store.load();
      const entries = (loaded?.entries ?? []).toSorted((a, b) => a.name.localeCompare(b.name));
      if (command.json)
        return `${JSON.stringify(
          entries.map(({ sha256: _, ...shown }) => shown),
          null,
          2,
        )}\n`;
      return entries.length === 0 ? `there are no keys in ${store.place}\n` : `${table(entries)}\n`;
    }
    case 'revoke': {
      const { name, id } = await store.remove(command.idOrName);
      return `revoked ${name} (${id}); running gateways refuse it within seconds\n`;
    }
  }
}

function table(entries: readonly KeyEntry[]): string {
  const rows = new Table({ head: ['name', 'id', 'created', 'may'], style: { head: [], border: [] } });
  for (const entry of entries) {
    const limits = GRANTS.filter((grant) => entry[grant] !== undefined && entry[grant] !== 0).map(
      (grant) => `${grant.replaceAll('_', ' ')} ${[entry[grant]].flat().join(', ')}`,
    );
    rows.push([entry.name, entry.id, entry.created.slice(0, 10), limits.join('\n') || 'everything']);
  }
  return rows.toString();
}

export function helpText(): string {
  return [
    'npm run keys -- COMMAND: virtual API keys of the gateway',
    '',
    '  create NAME [options]   creates a key and prints it once',
    '  list [--json]           lists all keys, without their secrets',
    '  revoke ID_OR_NAME       revokes a key',
    '',
    '  --config FILE           configuration file (default: CRYSTALKV_CONFIG, or crystal-kv.yaml when it exists);',
    '                          gateway.keys sets where keys are stored',
    '  --help, -h              show this help',
    '',
    'Options of create; anything left out is unlimited',
    ...GRANTS.map((grant) => `  --${dashed(grant)} VALUE\n      ${grantsShape[grant].description}`),
    '',
  ].join('\n');
}

function dashed(name: string): string {
  return name.replaceAll('_', '-');
}

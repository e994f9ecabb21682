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
    throw new KeyError(`${(error as Error).message.split('. ')[0]}; --help says what there is`);
  }
  const config = values['config'] as string | undefined;
  const [verb, subject, ...more] = positionals;
  if (values['help'] === true || verb === undefined) return { command: { kind: 'help' }, config };
  if (more.length > 0) throw new KeyError(`${more.join(' ')} is one argument too many; --help says what there is`);
  const given = GRANTS.filter((grant) => values[dashed(grant)] !== undefined);
  if (verb !== 'create' && given.length > 0) throw new KeyError(`--${dashed(given[0] as string)} is for create only`);
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
      throw new KeyError(`${JSON.stringify(verb)} is no command; there are ${COMMANDS.join(', ')}`);
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
          ? 'The gateway does not ask for keys yet: gateway.keys.store is off; set it to file.\n'
          : '';
      return `${secret}\n\nThis is the key ${entry.name} (${id}). It is shown this once; ${store.place} holds only its digest.\n${off}`;
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
      return entries.length === 0 ? `no keys in ${store.place}\n` : `${table(entries)}\n`;
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
    '  create NAME [options]   makes a key and prints it, once',
    '  list [--json]           shows all keys, without what is secret',
    '  revoke ID_OR_NAME       takes a key back',
    '',
    '  --config FILE           configuration file (default: CRYSTALKV_CONFIG, or crystal-kv.yaml when it exists);',
    '                          gateway.keys says where keys are kept',
    '  --help, -h              this text',
    '',
    'Options of create; what is left out is not limited',
    ...GRANTS.map((grant) => `  --${dashed(grant)} VALUE\n      ${grantsShape[grant].description}`),
    '',
  ].join('\n');
}

function dashed(name: string): string {
  return name.replaceAll('_', '-');
}

import { ConfigError } from '../common/config.ts';
import { loadProgramConfig } from '../common/program.ts';
import { type GatewayConfig, gatewaySchema } from '../gateway/config.ts';
import { helpText, readArguments, runCommand } from '../gateway/keys/command.ts';
import { KeyError } from '../gateway/keys/entry.ts';
import { openKeyStore } from '../gateway/keys/open.ts';
import { openRedis } from '../gateway/redis.ts';

const sections = { gateway: { section: 'gateway', schema: gatewaySchema } } as const;

/** Exit codes: 0 done, 1 it could not be done, 2 unusable arguments or configuration. */
try {
  const { command, config: file } = readArguments(process.argv.slice(2));
  if (command.kind === 'help') {
    process.stdout.write(helpText());
  } else {
    const { gateway } = loadProgramConfig<{ gateway: GatewayConfig }>({ sections }, file, process.env);
    const redis = gateway.keys.store === 'redis' ? openRedis(gateway.redis) : undefined;
    try {
      const store = await openKeyStore(gateway.keys, redis);
      process.stdout.write(await runCommand(command, store, gateway.keys));
    } finally {
      redis?.close();
    }
  }
} catch (error) {
  if (!(error instanceof KeyError) && !(error instanceof ConfigError)) throw error;
  process.stderr.write(`keys: ${error.message}\n`);
  process.exitCode = error instanceof ConfigError ? 2 : 1;
}

import { parseArgs } from 'node:util';
import { collectDefaultMetrics } from 'prom-client';
import { createLogger } from '../common/logger.ts';
import { loadProgramConfig, type Program, runProgram } from '../common/program.ts';
import { type GatewayConfig, gatewaySchema, profilesSchema } from './config.ts';
import { createGateway } from './gateway.ts';
import { createTracing } from './tracing.ts';

interface Config {
  gateway: GatewayConfig;
  profiles: Record<string, unknown>;
}

const sections: Program<Config>['sections'] = {
  gateway: { section: 'gateway', schema: gatewaySchema },
  profiles: { section: 'profiles', schema: profilesSchema },
};

/** The configuration as it is now: the same file and environment as at the start. */
function readAgain(): Config {
  const { values } = parseArgs({ options: { config: { type: 'string' } }, strict: false });
  const file = typeof values['config'] === 'string' ? values['config'] : undefined;
  return loadProgramConfig({ sections }, file, process.env);
}

await runProgram<Config>({
  name: 'gateway',
  summary: 'an OpenAI endpoint in front of one or several servers; reads its configuration again on SIGHUP',
  sections,
  async start({ gateway: config, profiles }) {
    const logger = createLogger('gateway', config.log_level);
    const tracing = await createTracing(process.env);
    const gateway = await createGateway(config, { logger, profiles: Object.keys(profiles), tracing });
    collectDefaultMetrics({ register: gateway.registry, labels: { service: 'gateway' } });
    const onHangUp = () => {
      try {
        const next = readAgain().gateway;
        gateway.reload(next);
        logger.level = next.log_level;
      } catch (error) {
        logger.error({ reason: (error as Error).message }, 'the configuration stays as it was');
      }
    };
    process.on('SIGHUP', onHangUp);
    return async () => {
      process.off('SIGHUP', onHangUp);
      await gateway.close();
    };
  },
});

import { parseArgs } from 'node:util';
import { createLogger } from '../common/logger.ts';
import { collectProcessMetrics } from '../common/process-metrics.ts';
import { loadProgramConfig, type Program, runProgram } from '../common/program.ts';
import { type Config, policyServiceSchema } from './config.ts';
import { profilesSchema } from './request/profiles.ts';
import { createServer } from './rpc/server.ts';

const sections: Program<Config>['sections'] = {
  service: { section: 'policy_service', schema: policyServiceSchema },
  profiles: { section: 'profiles', schema: profilesSchema },
};

/** The configuration as it is now: the same file and environment as at the start. */
function readAgain(): Config {
  const { values } = parseArgs({ options: { config: { type: 'string' } }, strict: false });
  const file = typeof values['config'] === 'string' ? values['config'] : undefined;
  return loadProgramConfig({ sections }, file, process.env);
}

await runProgram<Config>({
  name: 'policy-service',
  summary: 'decides which KV-cache blocks engines keep; reads its configuration again on SIGHUP',
  sections,
  async start(config) {
    const logger = createLogger('policy-service', config.service.log_level);
    const server = await createServer({ config, logger });
    collectProcessMetrics(server.registry, 'policy-service');
    const onHangUp = () => {
      try {
        const next = readAgain();
        server.reload(next);
        logger.level = next.service.log_level;
      } catch (error) {
        server.reloadFailed(error as Error);
      }
    };
    process.on('SIGHUP', onHangUp);
    return async () => {
      process.off('SIGHUP', onHangUp);
      await server.close();
    };
  },
});

import { createLogger } from '../common/logger.ts';
import { collectProcessMetrics } from '../common/process-metrics.ts';
import type { Program } from '../common/program.ts';
import { type Config, checkExposure, policyServiceSchema, settingsOf } from './config.ts';
import { profilesSchema } from './request/profiles.ts';
import { createServer } from './rpc/server.ts';

export function policyServiceProgram(): Program<Config> {
  return {
    name: 'policy-service',
    summary: 'decides which KV-cache blocks engines keep',
    sections: {
      service: { section: 'policy_service', schema: policyServiceSchema },
      profiles: { section: 'profiles', schema: profilesSchema },
    },
    check(config) {
      settingsOf(config);
      checkExposure(config.service);
    },
    async start(config) {
      const logger = createLogger('policy-service', config.service.log_level);
      const server = await createServer({ config, logger });
      collectProcessMetrics(server.registry, 'policy-service');
      return {
        stop: () => server.close(),
        reload(read) {
          try {
            const next = read();
            server.reload(next);
            logger.level = next.service.log_level;
          } catch (error) {
            server.reloadFailed(error as Error);
          }
        },
      };
    },
  };
}

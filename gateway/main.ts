import { collectDefaultMetrics } from 'prom-client';
import { createLogger } from '../common/logger.ts';
import { runProgram } from '../common/program.ts';
import { type GatewayConfig, gatewaySchema, profilesSchema } from './config.ts';
import { createGateway } from './gateway.ts';
import { createTracing } from './tracing.ts';

await runProgram<{ gateway: GatewayConfig; profiles: Record<string, unknown> }>({
  name: 'gateway',
  summary: 'an OpenAI endpoint in front of one or several servers',
  sections: {
    gateway: { section: 'gateway', schema: gatewaySchema },
    profiles: { section: 'profiles', schema: profilesSchema },
  },
  async start({ gateway: config, profiles }) {
    const logger = createLogger('gateway', config.log_level);
    const tracing = await createTracing(process.env);
    const gateway = await createGateway(config, { logger, profiles: Object.keys(profiles), tracing });
    collectDefaultMetrics({ register: gateway.registry, labels: { service: 'gateway' } });
    return () => gateway.close();
  },
});

import { join } from 'node:path';
import { createLogger } from '../../common/logger.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { createGateway } from '../../gateway/gateway.ts';
import { createFileStore } from '../../gateway/keys/file-store.ts';
import { bearer, folder, newKey } from '../gateway-keys/harness.ts';
import { startRedis } from '../gateway-keys/redis-server.ts';

export interface KeyedGateway {
  metricsUrl: string;
  /** Sends requests with a key until its limit refuses one. */
  spend(): Promise<void>;
  close(): Promise<void>;
}

const REQUESTS_PER_MINUTE = 3;

/** A second gateway, in this process, with API keys whose limits are counted in a real Redis. */
export async function startKeyedGateway(backendUrl: string): Promise<KeyedGateway> {
  const ends: (() => void | Promise<void>)[] = [];
  const owner = { after: (end: () => void | Promise<void>) => void ends.push(end) };
  const redis = await startRedis(owner);
  const file = join(folder(owner), 'keys.json');
  const key = newKey('team', { requests_per_minute: REQUESTS_PER_MINUTE });
  await createFileStore(file).add(key.entry);
  const config = {
    port: 0,
    backends: [{ url: backendUrl }],
    keys: { store: 'file', file },
    redis: { url: redis.url },
  };
  const gateway = await createGateway(gatewaySchema.parse(config), {
    logger: createLogger('test', 'silent'),
    profiles: [],
  });
  const ask = async () => {
    const response = await fetch(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...bearer(key).headers },
      body: JSON.stringify({
        model: 'crystal-mini',
        max_tokens: 4,
        messages: [{ role: 'user', content: 'let cat = 1 ; ? cat' }],
      }),
    });
    await response.text();
    return response.status;
  };
  return {
    metricsUrl: gateway.metricsUrl,
    async spend() {
      for (let i = 0; i <= REQUESTS_PER_MINUTE; i += 1) if ((await ask()) === 429) return;
      throw new Error('no request was refused');
    },
    async close() {
      await gateway.close();
      for (const end of ends.reverse()) await end();
    },
  };
}

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createLogger } from '../../common/logger.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { createGateway } from '../../gateway/gateway.ts';
import { startCluster } from '../../scripts/cluster.ts';
import { createReplay } from './replay.ts';

/**
 * For tests in other languages: prints one line with the addresses of a gateway in front of the replayed vLLM, and of a
 * gateway in front of the embedded engine; stops when standard input ends.
 */
const upstream = await createReplay();
const replayed = await createGateway(gatewaySchema.parse({ port: 0, drain_ms: 0, backends: [upstream.url] }), {
  logger: createLogger('gateway', 'silent'),
  profiles: [],
});
const cluster = await startCluster({
  start: ['engine', 'gateway'],
  config: { engine: { log_level: 'warn', policy_address: '' }, gateway: { log_level: 'warn' } },
});

/** How many requests the upstream got, and how many of them were broken off. */
const control = createServer((_request, response) => {
  const aborted = upstream.received.filter((received) => received.aborted).length;
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ received: upstream.received.length, aborted }));
}).listen(0, '127.0.0.1');
await once(control, 'listening');
const { port } = control.address() as AddressInfo;
process.stdout.write(
  `${JSON.stringify({
    gateway: replayed.url,
    upstream: upstream.url,
    counts: `http://127.0.0.1:${port}/`,
    engine_gateway: cluster.gatewayUrl,
    engine: cluster.engineUrl,
  })}\n`,
);

process.stdin.resume();
await once(process.stdin, 'end');
control.close();
control.closeAllConnections();
await Promise.all([replayed.close(), cluster.close()]);
await upstream.close();

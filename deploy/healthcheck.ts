/**
 * A container's health check: asks the program beside it for /health on loopback, exit code 0 when it answers 2xx.
 * The port is the one that the program's own environment variable names, so that both always agree.
 */
const PROGRAMS: Readonly<Record<string, { variable: string; port: string }>> = {
  gateway: { variable: 'CRYSTALKV_GATEWAY_PORT', port: '8080' },
  'policy-service': { variable: 'CRYSTALKV_POLICY_SERVICE_METRICS_PORT', port: '9091' },
  engine: { variable: 'CRYSTALKV_ENGINE_PORT', port: '8000' },
};
const TIMEOUT_MS = 4_000;

const name = process.argv[2] ?? '';
const program = PROGRAMS[name];
if (program === undefined) {
  process.stderr.write(
    `healthcheck: no program ${JSON.stringify(name)}; there are ${Object.keys(PROGRAMS).join(', ')}\n`,
  );
  process.exit(2);
}
// A gateway with TLS answers on https only; its certificate names the service, and not loopback.
const secure = name === 'gateway' && (process.env['CRYSTALKV_GATEWAY_TLS_CERT'] ?? '') !== '';
if (secure) process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
const port = process.env[program.variable] ?? program.port;
const url = `${secure ? 'https' : 'http'}://127.0.0.1:${port}/health`;
try {
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`status ${response.status}`);
} catch (error) {
  process.stderr.write(`healthcheck: ${url}: ${(error as Error).message}\n`);
  process.exit(1);
}

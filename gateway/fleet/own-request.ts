import type { Backend } from './backend.ts';

/** How the gateway names itself where it asks for itself. */
export const USER_AGENT = 'crystal-kv-gateway';

/** Longer answers are not what was asked for. */
const MAX_BYTES = 8 * 1024 * 1024;

export type OwnAnswer = { kind: 'answered'; status: number; body: string } | { kind: 'failed' };

/** One GET of the gateway's own, with a bound on time and size. Never rejects. */
export async function ownGet(
  backend: Backend,
  path: string,
  timeoutMs: number,
  headers: string[] = ['user-agent', USER_AGENT, ...backend.credential()],
): Promise<OwnAnswer> {
  const { pool, prefix } = backend;
  try {
    const answer = await pool.request({
      method: 'GET',
      path: prefix + path,
      headers,
      signal: AbortSignal.timeout(timeoutMs),
    });
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      length += chunk.length;
      // Leaving the loop closes the connection.
      if (length > MAX_BYTES) return { kind: 'failed' };
      chunks.push(chunk);
    }
    return { kind: 'answered', status: answer.statusCode, body: Buffer.concat(chunks).toString('utf8') };
  } catch {
    return { kind: 'failed' };
  }
}

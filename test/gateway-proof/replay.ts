import { readFileSync } from 'node:fs';
import { createUpstream, type Received, type Script, type Upstream } from '../gateway/upstream.ts';

/** One exchange with a real vLLM, as it was on the wire. */
export interface Exchange {
  request: { method: string; path: string; body?: unknown };
  status: number;
  headers: Record<string, string>;
  text: string;
}

/**
 * What vLLM 0.32.0 on a CPU answered: crystal-mini, and for tool calls, structured outputs and pooling a small random model
 * with a tokenizer of single bytes.
 */
export const RECORDED: Readonly<Record<string, Exchange>> = JSON.parse(
  readFileSync(new URL('vllm-0.32.json', import.meta.url), 'utf8'),
);

/** Models with a fate of their own; every other name that is not one of these is unknown, as in vLLM. */
const FATES = ['demo', 'crystal-mini', 'slow', 'hangs', 'busy', 'breaks'];

interface Body {
  model?: unknown;
  stream?: unknown;
  stream_options?: { include_usage?: boolean; continuous_usage_stats?: boolean } | null;
  messages?: unknown;
  tools?: unknown[] | null;
  tool_choice?: unknown;
  response_format?: { type?: string } | null;
  logprobs?: unknown;
  temperature?: unknown;
}

/** A server that answers as the recorded vLLM did to the request that is most like the one it gets. */
export function createReplay(): Promise<Upstream> {
  return createUpstream(replay);
}

const replay: Script = async (received) => {
  const body = parse(received);
  // Of bodies that cannot be read none was recorded; the refusal of one without messages is the nearest.
  const name = body === undefined ? 'no_messages' : choose(received, body);
  const exchange = RECORDED[name];
  if (exchange === undefined) throw new Error(`nothing was recorded as ${name}`);
  const { response } = received;
  if (body?.model === 'hangs') return;
  if (body?.model === 'busy') {
    response.writeHead(429, { 'content-type': 'application/json', 'retry-after': '7' });
    response.end('{"error":{"message":"too busy","type":"RateLimitError","param":null,"code":429}}');
    return;
  }
  response.writeHead(exchange.status, { 'content-type': exchange.headers['content-type'] ?? 'text/plain' });
  if (!exchange.headers['content-type']?.startsWith('text/event-stream')) {
    if (body?.model === 'breaks') response.write(exchange.text.slice(0, 20), () => response.destroy());
    else response.end(exchange.text);
    return;
  }
  const events = exchange.text.split(/(?<=\n\n)/);
  const end = body?.model === 'slow' || body?.model === 'breaks' ? 3 : events.length;
  for (const event of events.slice(0, end)) {
    await new Promise((resolve) => response.write(event, resolve));
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (body?.model === 'breaks') response.destroy();
  else if (body?.model !== 'slow') response.end();
};

function parse({ body, method }: Received): Body | undefined {
  if (method === 'GET') return {};
  try {
    const value: unknown = JSON.parse(body.toString());
    return typeof value === 'object' && value !== null ? (value as Body) : undefined;
  } catch {
    return undefined;
  }
}

function choose({ method, url }: Received, body: Body): string {
  const path = `${method} ${url.split('?')[0]}`;
  if (method === 'POST' && typeof body.model === 'string' && !FATES.includes(body.model)) return 'model_missing';
  switch (path) {
    case 'POST /v1/chat/completions':
      return chooseChat(body);
    case 'POST /v1/completions':
      return body.stream === true ? 'completion_stream' : 'completion';
    case 'POST /v1/responses':
      return body.stream === true ? 'responses_stream' : 'responses';
    case 'POST /v1/messages':
      return body.stream === true ? 'messages_stream' : 'messages';
    case 'POST /v1/responses/compact':
      return 'method'; // GET /v1/responses/{id} exists
    default:
      return SIMPLE[path] ?? 'not_found';
  }
}

function chooseChat(body: Body): string {
  if (!Array.isArray(body.messages)) return 'no_messages';
  if (typeof body.temperature === 'string') return 'bad_type';
  if (typeof body.temperature === 'number' && body.temperature < 0) return 'bad_value';
  const streams = body.stream === true;
  if (body.tools?.length) {
    if (typeof body.tool_choice === 'object') return streams ? 'tools_named_stream' : 'tools_named';
    return streams ? 'tools_stream' : 'tools';
  }
  if (body.response_format?.type === 'json_schema') return streams ? 'structured_stream' : 'structured';
  if (!streams) return body.logprobs === true ? 'chat_logprobs' : 'chat';
  if (body.stream_options?.continuous_usage_stats) return 'chat_stream_continuous';
  return body.stream_options?.include_usage ? 'chat_stream' : 'chat_stream_plain';
}

const SIMPLE: Readonly<Record<string, string>> = {
  'GET /v1/models': 'models',
  'GET /version': 'version',
  'GET /ping': 'ping',
  'POST /ping': 'ping',
  'POST /tokenize': 'tokenize',
  'POST /detokenize': 'detokenize',
  'POST /v1/messages/count_tokens': 'count_tokens',
  'POST /v1/embeddings': 'embeddings',
};

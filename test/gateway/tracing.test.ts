import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import type { TestProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { metric, setup } from './harness.ts';
import { listening, run } from './program.ts';
import { createUpstream, cut, hang, json, type Upstream } from './upstream.ts';

interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  attributes: { key: string; value: { stringValue?: string; intValue?: number | string } }[];
  events?: { name: string }[];
  status: { code?: number };
}

interface OtlpBody {
  resourceSpans: { resource: { attributes: OtlpSpan['attributes'] }; scopeSpans: { spans: OtlpSpan[] }[] }[];
}

/** Takes what an exporter sends over HTTP, as a collector does. */
async function receiver(t: TestContext) {
  const posts: { url: string; type: string; key: string; body: Buffer }[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const header = (name: string) => String(request.headers[name] ?? '');
    posts.push({
      url: request.url ?? '',
      type: header('content-type'),
      key: header('x-key'),
      body: Buffer.concat(chunks),
    });
    response
      .writeHead(200, { 'content-type': header('content-type') })
      .end(header('content-type').includes('json') ? '{}' : '');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const bodies = () => posts.map(({ body }) => JSON.parse(body.toString()) as OtlpBody);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    posts,
    spans: () =>
      bodies().flatMap((body) =>
        body.resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)),
      ),
    resource: () => Object.fromEntries(values(bodies()[0]!.resourceSpans[0]!.resource.attributes)),
  };
}

function values(attributes: OtlpSpan['attributes']): [string, string | number | undefined][] {
  return attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)]);
}

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT = '00f067aa0ba902b7';

async function start(
  t: TestContext,
  env: Record<string, string>,
): Promise<{ program: TestProgram; url: string; upstream: Upstream }> {
  const upstream = await createUpstream(json('{"ok":1}'));
  t.after(() => upstream.close());
  const program = await run(t, {
    CRYSTALKV_GATEWAY_PORT: '0',
    CRYSTALKV_GATEWAY_BACKENDS: `[${upstream.url}]`,
    CRYSTALKV_GATEWAY_DRAIN_MS: '0',
    CRYSTALKV_GATEWAY_RETRIES_MAX: '0',
    ...env,
  });
  return { program, url: await listening(program), upstream };
}

const ask = (url: string, headers: Record<string, string> = {}, signal?: AbortSignal) =>
  fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    body: '{"model":"org/m","messages":[{"role":"user","content":"secret-prompt"}]}',
    headers: { authorization: 'Bearer secret-key', ...headers },
    ...(signal !== undefined && { signal }),
  });

describe('traces by OpenTelemetry’s environment variables', () => {
  it('the gateway’s span is the child of the client’s and the parent of the backend’s', async (t) => {
    const otlp = await receiver(t);
    const { program, url, upstream } = await start(t, {
      OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
      OTEL_EXPORTER_OTLP_HEADERS: 'x-key=abc',
      OTEL_BSP_SCHEDULE_DELAY: '50',
    });
    const headers = { traceparent: `00-${TRACE}-${PARENT}-01`, tracestate: 'vendor=1', 'x-request-id': 'abc' };
    const response = await ask(url, headers);
    await response.text();
    const [span] = await until(() => otlp.posts.length > 0 && otlp.spans(), 'the span arrives');
    assert.deepEqual([span!.traceId, span!.parentSpanId, span!.kind], [TRACE, PARENT, 2]);
    assert.equal(span!.name, 'POST /v1/chat/completions');
    const sent = upstream.received[0]!;
    assert.equal(sent.headers['traceparent'], `00-${TRACE}-${span!.spanId}-01`);
    assert.equal(sent.headers['tracestate'], 'vendor=1');
    const names = sent.rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'traceparent');
    assert.equal(names.length, 1);
    assert.deepEqual(Object.fromEntries(values(span!.attributes)), {
      'http.request.method': 'POST',
      'crystalkv.request_id': 'abc',
      'http.route': '/v1/chat/completions',
      'http.response.status_code': 200,
      'crystalkv.outcome': 'ok',
      'gen_ai.request.model': 'org/m',
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'vllm',
      'gen_ai.usage.input_tokens': 37,
      'gen_ai.usage.output_tokens': 2,
      'server.address': '127.0.0.1',
      'server.port': upstream.port,
      'crystalkv.backend': upstream.url,
      'crystalkv.id': response.headers.get('x-crystalkv-id'),
    });
    assert.deepEqual(
      span!.events?.map(({ name }) => name),
      ['first_byte'],
    );
    assert.equal(otlp.posts[0]!.url, '/v1/traces');
    assert.equal(otlp.posts[0]!.key, 'abc');
    assert.equal(otlp.resource()['service.name'], 'crystal-kv-gateway');
    assert.ok(!otlp.posts.some(({ body }) => body.includes('secret')));
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
  });

  it('a request without a trace begins one; failures and aborts are told; the last spans are sent when it stops', async (t) => {
    const otlp = await receiver(t);
    const { program, url, upstream } = await start(t, {
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${otlp.url}/custom`,
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json',
      OTEL_SERVICE_NAME: 'mine',
    });
    upstream.script = cut(['data: 1\n\n']);
    await (await ask(url)).text();
    upstream.script = hang;
    const abort = new AbortController();
    const left = ask(url, {}, abort.signal);
    await until(() => upstream.received.length === 2, 'the backend has it');
    abort.abort();
    await assert.rejects(left);
    await until(() => upstream.received[1]!.aborted, 'the backend sees it');
    await (await fetch(`${url}/sleep`, { method: 'POST' })).text();
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
    const outcomes = otlp.spans().map((span) => {
      const attributes = Object.fromEntries(values(span.attributes));
      return [
        attributes['http.route'],
        attributes['http.response.status_code'],
        attributes['crystalkv.outcome'],
        span.status.code,
      ];
    });
    assert.deepEqual(outcomes, [
      ['/v1/chat/completions', 200, 'broken', 2],
      ['/v1/chat/completions', 499, 'client_abort', 0],
      ['other', 404, 'client_error', 0],
    ]);
    assert.equal(new Set(otlp.spans().map(({ traceId }) => traceId)).size, 3);
    assert.ok(otlp.posts.every(({ url: path }) => path === '/custom'));
    assert.equal(otlp.resource()['service.name'], 'mine');
    assert.match(upstream.received[0]!.headers['traceparent'] as string, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
  });

  it('the protocol is protobuf unless told otherwise, and a client that does not sample is obeyed', async (t) => {
    const otlp = await receiver(t);
    const { program, url, upstream } = await start(t, { OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url });
    await (await ask(url, { traceparent: `00-${'1'.repeat(32)}-${PARENT}-00` })).text();
    await (await ask(url, { traceparent: `00-${TRACE}-${PARENT}-01` })).text();
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
    const body = Buffer.concat(otlp.posts.map((post) => post.body));
    assert.equal(otlp.posts[0]!.type, 'application/x-protobuf');
    assert.ok(body.includes(Buffer.from(TRACE, 'hex')));
    assert.ok(!body.includes(Buffer.from('1'.repeat(32), 'hex')));
    assert.match(upstream.received[0]!.headers['traceparent'] as string, /^00-1{32}-[0-9a-f]{16}-00$/);
  });

  it('a collector that is not there costs no request, and no clean end', async (t) => {
    const { program, url } = await start(t, { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1' });
    for (let i = 0; i < 5; i++) assert.equal((await ask(url)).status, 200);
    program.child.signal('SIGTERM');
    assert.equal(await program.ended(), 0);
  });
});

describe('without those variables', () => {
  it('OpenTelemetry’s SDK is not even loaded', async (t) => {
    const hooks = `import { registerHooks } from 'node:module';
      registerHooks({ resolve(name, context, next) {
        if (name.includes('opentelemetry')) process.stderr.write('loaded ' + name + '\\n');
        return next(name, context);
      } });`;
    const importing = [`--import=data:text/javascript,${encodeURIComponent(hooks)}`];
    const env = { CRYSTALKV_GATEWAY_PORT: '0' };
    const off = await run(t, { ...env, OTEL_SERVICE_NAME: 'x' }, [], importing);
    await listening(off);
    // prom-client loads the API by itself, for exemplars.
    assert.doesNotMatch(off.output(), /loaded (?!@opentelemetry\/api)/);
    const on = await run(t, { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1' }, [], importing);
    await listening(on);
    assert.match(on.output(), /loaded @opentelemetry\/sdk-node/);
    const disabled = await run(
      t,
      { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_SDK_DISABLED: 'true' },
      [],
      importing,
    );
    await listening(disabled);
    assert.doesNotMatch(disabled.output(), /loaded (?!@opentelemetry\/api)/);
  });

  it('traceparent, tracestate and baggage pass as they are', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const headers = { traceparent: `00-${TRACE}-${PARENT}-01`, tracestate: 'a=b', baggage: 'c=d' };
    await (await ask(gateway.url, headers)).text();
    for (const [name, value] of Object.entries(headers)) assert.equal(upstream.received[0]!.headers[name], value);
    assert.equal(await metric(gateway, 'crystalkv_gateway_inflight'), 0);
  });
});

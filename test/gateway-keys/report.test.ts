import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { FinishReason } from '../../proto/gen/crystalkv/v1/policy.ts';
import { chat, metricReaches, post, startGateway } from '../gateway/harness.ts';
import { createUpstream, json, stream } from '../gateway/upstream.ts';
import { row, ScriptedEngine, started, startService } from '../policy-service/scripted-engine.ts';

const ASK = { model: 'm', messages: [], crystal_kv: { report: true } };
/** Of 136 tokens in blocks of 16. */
const REPORT = '"crystal_kv":{"blocks":9,"blocks_kept":9,"blocks_evicted":0,"peak_share":1}';
const outcome = (name: string) => `crystalkv_gateway_cache_reports_total{outcome="${name}"}`;

/** A real policy service, whose engine serves each request of the backend and ends it before the backend answers. */
async function served(t: TestContext, answer: Parameters<typeof createUpstream>[0], policyAddress?: string) {
  const service = await startService();
  const engine = new ScriptedEngine(service.address);
  await engine.greet();
  let handle = 0;
  const upstream = await createUpstream(async (received) => {
    const { vllm_xargs } = JSON.parse(received.body.toString()) as { vllm_xargs: { crystalkv_id: string } };
    handle += 1;
    engine.start(started(handle, { crystalkvId: vllm_xargs.crystalkv_id }));
    await engine.step(2 * handle, [row(handle, 136)]);
    const reason = FinishReason.FINISH_REASON_STOP;
    engine.send({ $case: 'finished', value: { handle, reason, generatedTokens: 104, probeTokens: 0 } });
    await engine.step(2 * handle + 1, []);
    await answer(received);
  });
  const backends = [{ url: upstream.url, policyAddress: policyAddress ?? service.address }];
  const { gateway } = await startGateway({ backends, usage: { report_timeout_ms: 10_000 } });
  t.after(async () => {
    await gateway.close();
    await upstream.close();
    engine.close();
    await service.close();
  });
  return { gateway, upstream };
}

describe('crystal_kv.report', () => {
  it('puts what the cache kept into the usage, and changes nothing else', async (t) => {
    const { gateway, upstream } = await served(t, json('{"big":12345678901234567890, "usage": {"prompt_tokens":1} }'));
    const response = await chat(gateway, ASK);
    const text = await response.text();
    assert.equal(text, `{"big":12345678901234567890, "usage": {"prompt_tokens":1,${REPORT}} }`);
    assert.equal(Number(response.headers.get('content-length')), Buffer.byteLength(text));
    assert.ok(!upstream.received[0]!.body.includes('report'));
    await metricReaches(gateway, outcome('told'), 1);
  });

  it('in a stream it is in the event of the usage, and all else comes after it as it was', async (t) => {
    const before = 'data: {"choices":[{"delta":{"content":"x"}}]}\n\n';
    const usage = 'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n';
    const { gateway } = await served(t, stream([before, `${usage}data: [DONE]\n\n`]));
    const text = await (await chat(gateway, { ...ASK, stream: true, stream_options: { include_usage: true } })).text();
    assert.equal(text, `${before}data: {"choices":[],"usage":{"prompt_tokens":1,${REPORT}}}\n\ndata: [DONE]\n\n`);
  });

  it('of the responses API is in its last event', async (t) => {
    const last = (more: string) =>
      `event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":1${more}}}}\n\n`;
    const { gateway } = await served(t, stream([last('')]));
    const response = await post(gateway, '/v1/responses', { ...ASK, stream: true });
    assert.equal(await response.text(), last(`,${REPORT}`));
  });

  it('is left out, and counted, when no policy service answers', async (t) => {
    const body = '{"usage":{"prompt_tokens":1}}';
    const { gateway } = await served(t, json(body), '127.0.0.1:9');
    assert.equal(await (await chat(gateway, ASK)).text(), body);
    await metricReaches(gateway, outcome('missing'), 1);
  });
});

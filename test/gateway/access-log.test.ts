import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { until } from '../support/until.ts';
import { chat, metric, setup } from './harness.ts';
import { json, stream } from './upstream.ts';

const USAGE =
  '{"id":"x","choices":[{"message":{"content":"secret"}}],"usage":{"prompt_tokens":11,"completion_tokens":7}}';

describe('what is told of a request', () => {
  it('has its model and its tokens, and nothing of what was said', async (t) => {
    const { gateway, log } = await setup(t, json(USAGE), { models: { aliases: { m: 'm' } } });
    await (await chat(gateway, { model: 'm', messages: [{ role: 'user', content: 'question' }] })).text();
    const line = await until(() => log.find(({ msg }) => msg === 'request'), 'it is logged');
    assert.deepEqual([line['model'], line['input_tokens'], line['output_tokens']], ['m', 11, 7]);
    assert.ok(!/secret|question/.test(JSON.stringify(line)));
    const labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="vllm",gen_ai_request_model="m"';
    assert.equal(await metric(gateway, `gen_ai_client_token_usage_sum{${labels},gen_ai_token_type="output"}`), 7);
    assert.equal(await metric(gateway, `gen_ai_server_request_duration_seconds_count{${labels}}`), 1);
    assert.equal(await metric(gateway, `gen_ai_server_time_to_first_token_seconds_count{${labels}}`), 1);
  });

  it('counts the estimate of a stream that does not tell its tokens', async (t) => {
    const { gateway, log } = await setup(
      t,
      stream(['data: {"choices":[{"delta":{"content":"word word"}}]}\n\n', 'data: [DONE]\n\n']),
    );
    await (await chat(gateway, { model: 'm', stream: true, messages: [] })).text();
    const line = await until(() => log.find(({ msg }) => msg === 'request'), 'it is logged');
    assert.ok(Number(line['output_tokens']) > 0);
  });
});

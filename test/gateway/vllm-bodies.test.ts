import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { forceUsage } from '../../gateway/request/force-usage.ts';
import { JsonBody } from '../../gateway/request/json-body.ts';
import { wantedOutput } from '../../gateway/request/wanted-output.ts';

interface Recorded {
  path: string;
  body: string;
  /** Null: vLLM refuses the body. */
  read: { stream: boolean; n: number; prompts: number; max_tokens: number | null; usage: boolean } | null;
}

/** What vLLM's request classes read; `vllm-plugin/tests/record_request_bodies.py` writes it, a test there verifies it. */
const records = JSON.parse(readFileSync(new URL('./vllm-bodies.json', import.meta.url), 'utf8')) as Recorded[];

describe('bodies as vLLM reads them', () => {
  it('are 2,000, of which vLLM takes many', () => {
    assert.equal(records.length, 2_000);
    assert.ok(records.filter(({ read }) => read !== null).length > 500);
  });

  it('are streams for the gateway where they are for vLLM, and ask for usage where they do', () => {
    for (const { path, body, read } of records) {
      if (read === null) continue;
      const json = new JsonBody(Buffer.from(body));
      assert.equal(json.stream, read.stream, body);
      if (!read.stream || path === '/v1/messages') continue;
      assert.equal(forceUsage(json).shown !== 'never', read.usage, body);
    }
  });

  it('reserve at least what vLLM would make', () => {
    for (const { path, body, read } of records) {
      if (read === null) continue;
      const { most, choices } = wantedOutput(new JsonBody(Buffer.from(body)), path);
      assert.ok(choices >= read.n * read.prompts, `${choices} choices: ${body}`);
      // Without a limit the gateway reserves what it is configured to; vLLM makes 16 of a text completion then.
      if (read.max_tokens !== null)
        assert.ok(most === undefined ? read.max_tokens <= 16 : most >= read.max_tokens, body);
      else assert.equal(most, undefined, body);
    }
  });
});

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import Ajv from 'ajv/dist/2020.js';
import { requestBodies } from '../../gateway/openapi/bodies.ts';
import { openApiDocument } from '../../gateway/openapi/document.ts';
import { ROUTES } from '../../gateway/routes.ts';
import { chat, setup } from './harness.ts';
import { json } from './upstream.ts';

const LIMITS = { budgetTokens: { min: 1, max: 100 }, profiles: ['tight', 'wide'] };

interface Operation {
  operationId: string;
  requestBody?: { content: Record<string, { schema: object }> };
  responses: Record<string, unknown>;
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: { Error: object } };
}

describe('the OpenAPI document', () => {
  const document = openApiDocument(LIMITS) as unknown as Document;
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })),
  );

  it('is served', async (t) => {
    const { gateway, upstream } = await setup(t, json('{}'));
    const response = await fetch(`${gateway.url}/openapi.json`);
    assert.equal(response.status, 200);
    const { openapi, paths } = (await response.json()) as Document;
    assert.equal(openapi, '3.1.0');
    assert.deepEqual(Object.keys(paths), Object.keys(document.paths));
    assert.equal(upstream.arriving.length, 0);
  });

  it('has every route, and nothing else but the gateway’s own paths', () => {
    const named = operations.map(({ method, path }) => `${method} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`);
    const own = ['GET /health', 'GET /ready', 'GET /openapi.json'];
    assert.deepEqual(named.toSorted(), [...ROUTES.map(({ method, path }) => `${method} ${path}`), ...own].toSorted());
    assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length);
  });

  it('describes a body for every path that takes JSON or a form, and for no other path', () => {
    const taking = ROUTES.filter(
      ({ body, path, method }) => method === 'POST' && (body !== 'raw' || path.includes('tokenize')),
    );
    assert.deepEqual(Object.keys(requestBodies(LIMITS)).toSorted(), taking.map(({ path }) => path).toSorted());
  });

  it('tells what the gateway refuses in crystal_kv', () => {
    const schema = document.paths['/v1/chat/completions']!['post']!.requestBody!.content['application/json']!.schema;
    const validate = new Ajv.default({ strict: false }).compile(schema);
    const body = (crystal_kv: unknown) => ({ messages: [{ role: 'user', content: 'x' }], anything: 1, crystal_kv });
    for (const good of [undefined, null, {}, { mode: 'off' }, { budget_tokens: 100, profile: 'tight' }]) {
      assert.ok(validate(body(good)), JSON.stringify(good));
    }
    for (const bad of [1, { mode: 'on' }, { budget_tokens: 101 }, { profile: 'none' }, { other: 1 }]) {
      assert.ok(!validate(body(bad)), JSON.stringify(bad));
    }
  });

  it('its error is what the gateway answers', async (t) => {
    const validate = new Ajv.default({ strict: false }).compile(document.components.schemas.Error);
    const { gateway } = await setup(t, json('{}'));
    const response = await chat(gateway, '[]');
    assert.ok(document.paths['/v1/chat/completions']!['post']!.responses[response.status]);
    assert.ok(validate(await response.json()));
  });
});

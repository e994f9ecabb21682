import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type ServiceError, status } from '@grpc/grpc-js';
import { createEndedRequests } from '../../policy-service/rpc/ended-requests.ts';
import { FinishReason, type GetRequestResponse, type RequestState } from '../../proto/gen/crystalkv/v1/policy.ts';
import { engineFor, row, serviceFor, started } from './scripted-engine.ts';

const state = (crystalkvId: string) =>
  ({ crystalkvId, choiceIndex: 0, keepValues: [1], probeMasses: [1] }) as RequestState & object;

suite('requests that have ended', () => {
  test('are known for half a minute, without what is long', () => {
    let now = 0;
    const ended = createEndedRequests(() => now);
    ended.add(state('a'));
    now = 29_999;
    assert.deepEqual(ended.get('a', 0)?.keepValues, []);
    assert.equal(ended.get('a', 1), undefined);
    now = 30_000;
    assert.equal(ended.get('a', 0), undefined);
  });

  test('are not more than 2,048, the newest', () => {
    const ended = createEndedRequests(() => 0);
    for (let index = 0; index < 3_000; index++) ended.add(state(`r${index}`));
    assert.equal(ended.get('r951', 0), undefined);
    assert.ok(ended.get('r952', 0));
    assert.ok(ended.get('r2999', 0));
  });

  test('are told by GetRequest as they ended, and no longer listed', async (t) => {
    const engine = engineFor(t, (await serviceFor(t)).address);
    await engine.greet();
    engine.start(started(1, { crystalkvId: 'abc' }));
    await engine.step(1, [row(1, 136)]);
    engine.send({
      $case: 'finished',
      value: { handle: 1, reason: FinishReason.FINISH_REASON_STOP, generatedTokens: 104, probeTokens: 0 },
    });
    await engine.step(2, []);
    const get = (crystalkvId: string) =>
      new Promise<GetRequestResponse>((resolve, reject) => {
        engine.client.getRequest({ crystalkvId, choiceIndex: 0 }, (error, response) =>
          error === null ? resolve(response) : reject(error),
        );
      });
    const { request } = await get('abc');
    assert.deepEqual([request?.blocks, request?.residentBlocks, request?.computedTokens], [9, 9, 136]);
    await assert.rejects(get('other'), (error: ServiceError) => error.code === status.NOT_FOUND);
    const list = await new Promise<number>((resolve, reject) =>
      engine.client.listRequests({ engineId: '', pageSize: 0, pageToken: '' }, (error, { requests }) =>
        error === null ? resolve(requests.length) : reject(error),
      ),
    );
    assert.equal(list, 0);
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { Client, credentials } from '@grpc/grpc-js';
import fc from 'fast-check';
import { decodeAttachRequest } from '../../policy-service/rpc/decode.ts';
import { AttachRequest } from '../../proto/gen/crystalkv/v1/policy.ts';
import { until } from '../support/until.ts';
import { hello, metric, serviceFor } from './scripted-engine.ts';

const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const step = fc.record({
  step: uint64,
  pool: fc.option(
    fc.record({ freeBlocks: uint32, totalBlocks: uint32, waiting: uint32, running: uint32, preemptions: uint64 }),
    { nil: undefined },
  ),
  requests: fc.array(
    fc.record({
      handle: uint32,
      epoch: uint32,
      computedTokens: uint32,
      phase: fc.constantFrom(0 as const, 1 as const, 2 as const, 3 as const),
      segmentStarts: fc.array(uint32),
      masses: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      shadow: fc.option(fc.record({ missedMass: fc.float({ noNaN: true }), regrettedTokens: uint32 }), {
        nil: undefined,
      }),
    }),
  ),
  more: fc.boolean(),
});

test('a step is decoded as the generated decoder does', () => {
  fc.assert(
    fc.property(step, (value) => {
      const bytes = AttachRequest.encode({ message: { $case: 'step', value } }).finish();
      assert.deepEqual(decodeAttachRequest(bytes), AttachRequest.decode(bytes));
    }),
  );
});

test('fields of a newer protocol are passed over', () => {
  const row = new BinaryWriter().uint32(8).uint32(5).uint32(794).bytes(Buffer.from('new')).finish();
  const inner = new BinaryWriter().uint32(8).uint64(3n).uint32(26).bytes(row).uint32(800).uint32(1).finish();
  const bytes = new BinaryWriter().uint32(34).bytes(inner).finish();
  const { message } = decodeAttachRequest(bytes);
  assert.ok(message?.$case === 'step');
  assert.equal(message.value.step, 3n);
  assert.equal(message.value.requests[0]?.handle, 5);
});

test('any bytes are decoded or said to be no message', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, asStep) => {
      if (asStep && bytes.length > 1) {
        bytes[0] = 34;
        bytes[1] = bytes.length - 2;
      }
      decodeAttachRequest(bytes);
    }),
    { numRuns: 2000 },
  );
});

test('bytes that are no message do not end the stream', async (context) => {
  const server = await serviceFor(context);
  const client = new Client(server.address, credentials.createInsecure());
  context.after(() => client.close());
  const answers: (string | undefined)[] = [];
  const stream = client.makeBidiStreamRequest(
    '/crystalkv.v1.KvPolicy/Attach',
    (bytes: Buffer) => bytes,
    (bytes: Buffer) => bytes,
  );
  stream.on('error', () => {});
  stream.on('data', () => answers.push('answer'));
  stream.write(Buffer.from([34, 250, 1, 2]));
  stream.write(Buffer.from(AttachRequest.encode({ message: { $case: 'hello', value: hello() } }).finish()));
  await until(() => answers.length === 2, 'welcome and configure have come');
  assert.equal(await metric(server, 'crystalkv_bad_messages_total', { reason: 'undecodable' }), 1);
  stream.cancel();
});

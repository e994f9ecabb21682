import { status } from '@grpc/grpc-js';
import { PROTOCOL } from '../../common/protocol.ts';
import { Capability, type Hello, type Statistic } from '../../proto/gen/crystalkv/v1/policy.ts';

/** Why a stream ends, as the engine is told. */
export interface Refusal {
  code: status;
  details: string;
}

/** An accepted Hello, and what follows from it. */
export interface NegotiatedHello {
  readonly protocol: number;
  readonly hello: Hello;
  readonly canEvict: boolean;
  readonly canProbe: boolean;
  /** What the engine can value tokens by when it merges; undefined: it cannot merge. */
  readonly statistics: ReadonlySet<Statistic> | undefined;
  /** It can mark what merges in shadow mode would let go. */
  readonly marksMerges: boolean;
  /** Tokens of the longest end-of-thinking sequence. */
  readonly probeSuffixTokens: number;
}

/** Checks bounds and chooses the highest protocol version that both sides speak. */
export function negotiate(hello: Hello): NegotiatedHello | Refusal {
  const problem = problemWith(hello);
  if (problem !== undefined) return { code: status.INVALID_ARGUMENT, details: problem };
  const protocol = Math.min(PROTOCOL.max, hello.protocolMax);
  if (protocol < PROTOCOL.min || protocol < hello.protocolMin) {
    return {
      code: status.FAILED_PRECONDITION,
      details:
        `no common protocol version: the engine speaks ${hello.protocolMin} to ${hello.protocolMax}, ` +
        `the policy service ${PROTOCOL.min} to ${PROTOCOL.max}`,
    };
  }
  return {
    protocol,
    hello,
    canEvict: hello.capabilities.includes(Capability.CAPABILITY_EVICT),
    canProbe: hello.capabilities.includes(Capability.CAPABILITY_PROBE) && hello.endOfThinking.length > 0,
    statistics: hello.capabilities.includes(Capability.CAPABILITY_MERGE) ? new Set(hello.statistics) : undefined,
    marksMerges: hello.capabilities.includes(Capability.CAPABILITY_SHADOW_MERGE),
    probeSuffixTokens:
      hello.probeSuffixTokens || hello.endOfThinking.reduce((most, { tokenIds }) => Math.max(most, tokenIds.length), 0),
  };
}

function problemWith(hello: Hello): string | undefined {
  if (hello.engineId.length < 1 || hello.engineId.length > 128) {
    return `engine_id has ${hello.engineId.length} characters; allowed: 1 to 128`;
  }
  const bounded: [name: string, value: number, min: number, max: number][] = [
    ['block_size', hello.blockSize, 1, 4096],
    ['head_groups', hello.headGroups, 1, 65_536],
    ['pool_blocks', hello.poolBlocks, 1, 0x7fff_ffff],
  ];
  for (const [name, value, min, max] of bounded) {
    if (value < min || value > max) return `${name} is ${value}; allowed: ${min} to ${max}`;
  }
  return undefined;
}

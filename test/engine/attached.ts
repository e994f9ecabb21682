import assert from 'node:assert/strict';
import { EngineCore } from '../../engine/core/engine-core.ts';
import type { CoreOptions } from '../../engine/core/options.ts';
import type { GenerateEvent, Report } from '../../engine/types.ts';
import type { Ack, Merge, RequestPlan, ShadowPlan } from '../../proto/gen/crystalkv/v1/policy.ts';
import { coreOptions, ScriptedModel } from './scripted-model.ts';

type PlainMerge = Omit<Merge, 'rule'> & Partial<Merge>;
type PlanChange = Partial<Omit<RequestPlan, 'merges' | 'shadow'>> & {
  merges?: readonly PlainMerge[];
  shadow?: Partial<Omit<ShadowPlan, 'merges'>> & { merges?: readonly PlainMerge[] };
};
const withRules = (merges: readonly PlainMerge[] = []): Merge[] =>
  merges.map((merge) => ({ rule: undefined, ...merge }));

/** An engine whose stream is up, with what it reports; measures every step. */
export function attached(change: Partial<CoreOptions> = {}, script?: (position: number) => number, probeTokens = 4) {
  const messages: Report[] = [];
  const events: { id: string; event: GenerateEvent }[] = [];
  const model = new ScriptedModel(8, script);
  const core = new EngineCore(coreOptions(change), model, {
    event: (id, event) => events.push({ id, event }),
    report: (message) => messages.push(message),
  });
  core.attach({ headGroups: [], measureEvery: 1, probeTokens, statistics: undefined });
  const run = (steps: number) => {
    for (let i = 0; i < steps; i++) core.step();
  };
  /** Sends a plan for the step that was last computed, runs one step, and returns what was acknowledged. */
  const plan = ({ merges, shadow, ...entry }: PlanChange, basedOnStep = core.lastStep): Ack => {
    const rest = { handle: 1, epoch: 0, evict: [], probe: false, releaseThinking: false, ...entry };
    const marks = shadow && { begin: false, evict: [], readShare: 0.1, ...shadow, merges: withRules(shadow.merges) };
    const full = { ...rest, merges: withRules(merges), shadow: marks };
    core.plan({ sequence: 9n, basedOnStep: BigInt(basedOnStep), requests: [full], stopProbes: [] });
    core.step();
    const ack = messages.findLast((message) => message.$case === 'ack');
    assert.ok(ack?.$case === 'ack' && ack.value.planSequence === 9n);
    return ack.value;
  };
  const tokensOf = (wanted: string): number[] =>
    events.flatMap(({ id, event }) => (id === wanted && event.type === 'token' ? [event.tokenId] : []));
  return { core, model, messages, events, tokensOf, run, plan };
}

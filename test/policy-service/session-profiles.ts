import { Mode } from '../../proto/gen/crystalkv/v1/policy.ts';

/** Six output blocks of 16; prompts have two blocks, and the newest two are protected. */
export const profiles = {
  default: { policy: 'window', controller: { type: 'fixed', budget_tokens: 96 }, cold_steps: 3 },
  crystal: {
    policy: 'crystal',
    controller: { type: 'fixed', budget_tokens: 160 },
    probe: { every_tokens: 64, max_tokens: 4, max_extra_share: 0.2 },
  },
  shadow: { policy: 'window', controller: { type: 'fixed', budget_tokens: 96 }, mode: 'shadow' },
  pressure: { policy: 'window', controller: { type: 'pressure', floor_tokens: 32, floor_share: 0 } },
  crf: { policy: 'crf', controller: { type: 'fixed', budget_tokens: 96 } },
};
/** A request's options that name a profile. */
export const options = (profile: string, mode: Mode = Mode.MODE_UNSPECIFIED) => ({ options: { profile, mode } });

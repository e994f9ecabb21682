import { crf } from './crf.ts';
import { crystal } from './crystal.ts';
import { full } from './full.ts';
import { h2o } from './h2o.ts';
import { h2oNorm } from './h2o-norm.ts';
import { keydiff } from './keydiff.ts';
import { lazy } from './lazy.ts';
import type { PolicyDefinition } from './policy.ts';
import { raas } from './raas.ts';
import { random } from './random.ts';
import { rkv } from './rkv.ts';
import { snapkv } from './snapkv.ts';
import { tova } from './tova.ts';
import { vase } from './vase.ts';
import { window } from './window.ts';

/** Every policy there is. Config values, metric labels and `ListPolicies` derive from the keys. */
export const POLICIES = Object.freeze({
  full,
  window,
  random,
  h2o,
  'h2o-norm': h2oNorm,
  tova,
  snapkv,
  raas,
  rkv,
  vase,
  keydiff,
  lazy,
  crf,
  crystal,
}) satisfies Readonly<Record<string, PolicyDefinition>>;

export type PolicyName = keyof typeof POLICIES;
export const POLICY_NAMES = Object.keys(POLICIES) as [PolicyName, ...PolicyName[]];

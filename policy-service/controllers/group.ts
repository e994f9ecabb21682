import type { EvictionMode } from '../../common/cache-options.ts';
import type { Controlling } from '../profiles.ts';
import type { Controller } from './controller.ts';
import { createFixedController } from './fixed.ts';
import { createPressureController } from './pressure.ts';

/** Requests that one controller looks at together: a fixed budget is each request's own, pressure is the profile's. */
export function groupKey(profile: string, controller: Controlling, mode: EvictionMode): string {
  return controller.type === 'fixed' ? 'fixed' : `pressure ${mode} ${profile}`;
}

export function createController(controller: Controlling): Controller {
  return controller.type === 'fixed' ? createFixedController() : createPressureController(controller);
}

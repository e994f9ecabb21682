import type { EvictionMode } from '../../common/protocol.ts';
import { adaptive } from './adaptive.ts';
import type { Controller } from './controller.ts';
import { fixed } from './fixed.ts';
import { pressure } from './pressure.ts';
import { ratio } from './ratio.ts';

/** Every controller there is. Config values, metric labels and the README's table derive from the keys. */
export const CONTROLLERS = Object.freeze({ pressure, fixed, ratio, adaptive });

export type ControllerName = keyof typeof CONTROLLERS;
export const CONTROLLER_NAMES = Object.keys(CONTROLLERS) as [ControllerName, ...ControllerName[]];

/** A controller with its options. */
export type ControllerOptions = {
  [K in ControllerName]: { type: K } & ReturnType<(typeof CONTROLLERS)[K]['options']>;
}[ControllerName];

type Schema = (typeof CONTROLLERS)[ControllerName]['schema'];
export const CONTROLLER_SCHEMAS = Object.values(CONTROLLERS).map(({ schema }) => schema) as [Schema, ...Schema[]];

/** A controller's options in the form that the service uses, from the form of the file. */
export function controllerOptions(config: { type: ControllerName }): ControllerOptions {
  return { type: config.type, ...CONTROLLERS[config.type].options(config as never) } as ControllerOptions;
}

export function createController(options: ControllerOptions): Controller {
  return CONTROLLERS[options.type].create(options as never);
}

/**
 * Names the requests that share one instance. What shadow mode would evict stays in the pool, so shadowed requests have
 * an instance of their own; canaries do not, since they stand for the requests around them.
 */
export function groupKey(profile: string, { type }: ControllerOptions, mode: EvictionMode): string {
  return CONTROLLERS[type].group === 'all' ? type : `${type} ${mode} ${profile}`;
}

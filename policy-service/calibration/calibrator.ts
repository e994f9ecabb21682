import type { Logger } from '../../common/logger.ts';
import type { MeasuredGroups } from '../measure/measured-groups.ts';
import type { RequestState } from '../request/request-state.ts';
import type { NegotiatedHello } from '../session/hello.ts';
import type { CalibrationCache } from './cache.ts';
import { chooseGroups } from './choose.ts';
import { CalibrationSample, type Rows } from './sample.ts';

export interface CalibrationOptions {
  /** The most head groups that are measured once they are chosen. */
  groups: number;
  /** Requests that are sampled before the choice. */
  requests: number;
  cache: CalibrationCache;
}

export interface CalibratorDeps {
  negotiated: NegotiatedHello;
  measured: MeasuredGroups;
  /** undefined: all head groups are measured always. */
  options: CalibrationOptions | undefined;
  logger: Logger;
  /** Called when head groups were chosen, never before this function returns. */
  onChosen(): void;
}

export type Calibrator = ReturnType<typeof createCalibrator>;

/**
 * Finds out which head groups of an engine's model to measure: from the cache, or else from the first requests that
 * keep their whole cache. Until then, and when they tell nothing, all are measured.
 */
export function createCalibrator({ negotiated, measured, options, logger, onChosen }: CalibratorDeps) {
  const { engineId, model, layers, headGroups } = negotiated.hello;
  const geometry = { model, layers, headGroups };
  const running = new Map<number, RequestState>();
  const done: { rows: Rows; answerWeight: number }[] = [];
  let state: 'idle' | 'sampling' | 'choosing' | 'closed' = 'idle';

  const choose = async ({ groups, cache }: CalibrationOptions) => {
    state = 'choosing';
    const samples = done.splice(0);
    const answerWeight = samples[0]!.answerWeight;
    const choice = await chooseGroups(
      samples.map(({ rows }) => rows),
      { groups, answerWeight },
    );
    if (state !== 'choosing') return;
    if (choice === undefined) {
      state = 'sampling';
      logger.warn(
        { engine: engineId, model },
        'these requests did not show which head groups predict best; calibration starts again',
      );
      return;
    }
    const { quality, qualityOfAll } = choice;
    await cache.save(geometry, {
      groups: choice.groups,
      quality,
      quality_of_all: qualityOfAll,
      requests: samples.length,
    });
    if (state !== 'choosing') return;
    logger.info({ engine: engineId, model, ...choice }, 'head groups chosen');
    state = 'idle';
    measured.select(choice.groups);
    onChosen();
  };

  const fail = (error: unknown) => {
    state = 'closed';
    logger.error({ err: error, engine: engineId }, 'calibration failed; all head groups are measured');
  };

  if (options !== undefined && headGroups > options.groups) {
    const known = options.cache.load(geometry);
    if (known === undefined) state = 'sampling';
    else measured.select(known.groups);
  }

  return {
    /** Whether one more request should keep its whole cache as a sample. */
    get wantsRequest(): boolean {
      return state === 'sampling' && options !== undefined && running.size + done.length < options.requests;
    },

    get isSampling(): boolean {
      return running.size > 0;
    },

    /** Samples a request from its beginning, if it keeps its whole cache and more samples are needed. */
    watch(request: RequestState): void {
      if (!this.wantsRequest || request.start.cold || request.mode === 'off') return;
      if (request.mode === 'enforce' && request.definition.evicts) return;
      request.sample = new CalibrationSample(headGroups);
      request.reads.wanted = true;
      running.set(request.handle, request);
    },

    /** The request has ended. An aborted one does not tell what would have been read later. */
    ended(request: RequestState, complete: boolean): void {
      if (!running.delete(request.handle) || request.sample === undefined || options === undefined) return;
      if (state !== 'sampling' || !complete) return;
      const rows = request.sample.rows((block) => request.reads.lastRead(block));
      if (rows.snapshots.length < 2) return;
      done.push({ rows, answerWeight: request.profile.parameters.answerWeight });
      if (done.length >= options.requests) choose(options).catch(fail);
    },

    close(): void {
      state = 'closed';
      running.clear();
      done.length = 0;
    },
  };
}

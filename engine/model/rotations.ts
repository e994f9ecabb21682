import type { Arena } from '../kernels/kernels.ts';
import type { ModelConfig } from './config.ts';

/** Fills [maxPositions][headDim / 2] cosines and sines of the rotary angles, at byte offsets of the arena. */
export function fillRotations(arena: Arena, config: ModelConfig, at: { cos: number; sin: number }): void {
  const { headDim, maxPositions, ropeTheta } = config;
  const half = headDim / 2;
  const cos = arena.floats(at.cos, maxPositions * half);
  const sin = arena.floats(at.sin, maxPositions * half);
  for (let p = 0; p < maxPositions; p++) {
    for (let d = 0; d < half; d++) {
      const angle = p * ropeTheta ** (-d / half);
      cos[p * half + d] = Math.cos(angle);
      sin[p * half + d] = Math.sin(angle);
    }
  }
}

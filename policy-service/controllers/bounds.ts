import { z } from 'zod';

/** Bounds that options of several controllers share. */
export const share = z.number().min(0).max(1);
export const tokenCount = z.int().min(1).max(1_048_576);

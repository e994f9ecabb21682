import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Logger } from '../../common/logger.ts';

const VERSION = 1;

/** What a choice of head groups is for. */
export interface Geometry {
  model: string;
  layers: number;
  headGroups: number;
}

const entrySchema = z
  .object({
    version: z.literal(VERSION),
    model: z.string(),
    layers: z.int(),
    head_groups: z.int(),
    groups: z.array(z.int().min(0)).min(1),
    quality: z.number(),
    quality_of_all: z.number(),
    requests: z.int(),
  })
  .refine(
    ({ groups, head_groups }) => groups.every((group, i) => group < head_groups && group > (groups[i - 1] ?? -1)),
    {
      message: 'groups must be ascending and below head_groups',
      path: ['groups'],
    },
  );

export type CalibrationEntry = z.output<typeof entrySchema>;

export interface CalibrationCache {
  /**
   * undefined: there is no usable entry; a malformed one is logged. Reads a small file while an engine attaches, so
   * that its first Configure holds the choice.
   */
  load(geometry: Geometry): CalibrationEntry | undefined;
  /** Replaces the entry as a whole. A failure to write is logged. */
  save(
    geometry: Geometry,
    found: Omit<CalibrationEntry, 'version' | 'model' | 'layers' | 'head_groups'>,
  ): Promise<void>;
}

/** One file for each model and geometry, whose name is their hash: model names may be paths. */
export function createCalibrationCache(folder: string, logger: Logger): CalibrationCache {
  const fileOf = ({ model, layers, headGroups }: Geometry) => {
    const hash = createHash('sha256').update(`${model}\n${layers}\n${headGroups}`).digest('hex');
    return join(folder, `${hash.slice(0, 32)}.json`);
  };
  return {
    load(geometry) {
      const file = fileOf(geometry);
      try {
        const entry = entrySchema.parse(JSON.parse(readFileSync(file, 'utf8')));
        if (entry.model === geometry.model && entry.head_groups === geometry.headGroups) return entry;
        logger.warn({ file }, 'this calibration is for another model; ignoring it');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        const reason = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
        logger.warn({ file, reason }, 'this calibration is invalid; ignoring it');
      }
      return undefined;
    },
    async save({ model, layers, headGroups }, found) {
      const file = fileOf({ model, layers, headGroups });
      const entry: CalibrationEntry = { version: VERSION, model, layers, head_groups: headGroups, ...found };
      try {
        await mkdir(folder, { recursive: true });
        const draft = `${file}.${process.pid}`;
        await writeFile(draft, `${JSON.stringify(entry, null, 2)}\n`);
        await rename(draft, file);
      } catch (error) {
        logger.warn({ file, reason: (error as Error).message }, 'the calibration could not be saved');
      }
    },
  };
}

/** An entry of `/v1/models`; what else it holds is passed on. */
export interface ModelEntry {
  id: string;
  [field: string]: unknown;
}

/** The entries of an answer of `/v1/models`; undefined when it is not one. */
export function modelEntries(text: string): ModelEntry[] | undefined {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    return undefined;
  }
  const data = (answer as { data?: unknown } | null)?.data;
  if (!Array.isArray(data)) return undefined;
  return data.filter((entry): entry is ModelEntry => typeof (entry as Partial<ModelEntry> | null)?.id === 'string');
}

export function modelIds(text: string): string[] | undefined {
  return modelEntries(text)?.map(({ id }) => id);
}

/**
 * One list of several: each model once, as the first that serves it describes it, and each alias whose model is there,
 * under its own name; of these, those that `isShown`.
 */
export function mergeModels(
  lists: readonly (readonly ModelEntry[])[],
  aliases: ReadonlyMap<string, string>,
  isShown: (model: string) => boolean,
): { object: 'list'; data: ModelEntry[] } {
  const merged = new Map<string, ModelEntry>();
  for (const entry of lists.flat()) if (!merged.has(entry.id)) merged.set(entry.id, entry);
  for (const [alias, model] of aliases) {
    const entry = merged.get(model);
    if (entry !== undefined && !merged.has(alias)) merged.set(alias, { ...entry, id: alias });
  }
  return { object: 'list', data: [...merged.values()].filter(({ id }) => isShown(id)) };
}

/** The part of a backend that this file is about. */
export interface Ill {
  readonly illSince: number | undefined;
}

/**
 * Those of `all` that requests may go to: the well ones, and as many of the ill ones, the last to fall ill first, that
 * no more than `maxEjectedShare` (0 to 1) are left out. When all look ill, the fault may be ours or the network's, and a
 * gateway that then sends nothing makes an outage of it.
 */
export function inService<T extends Ill>(all: readonly T[], maxEjectedShare: number): readonly T[] {
  let ill = 0;
  for (const backend of all) if (backend.illSince !== undefined) ill++;
  if (ill === 0) return all;
  const mayBeOut = Math.floor(all.length * maxEjectedShare);
  if (ill <= mayBeOut) return all.filter(({ illSince }) => illSince === undefined);
  const out = new Set(
    all
      .filter(({ illSince }) => illSince !== undefined)
      .toSorted((a, b) => (a.illSince ?? 0) - (b.illSince ?? 0))
      .slice(0, mayBeOut),
  );
  return all.filter((backend) => !out.has(backend));
}

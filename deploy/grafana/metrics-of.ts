/** Families of metrics that queries ask for; recorded ones have colons, as vLLM's have. */
const NAME = /\b(?:(?:crystalkv|nodejs|process)_\w+|[a-z]\w*:\w[\w:]*)/g;

/** The metrics that a PromQL expression reads, as they are written in it. */
export function metricsOf(expression: string): string[] {
  const bare = expression.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""');
  return [...new Set(bare.match(NAME) ?? [])];
}

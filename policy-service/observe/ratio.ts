import { type Counter, Gauge, type Registry } from 'prom-client';
import { ofShadowed, type RequestLabels } from './counter.ts';

type RequestCounter = Counter<keyof RequestLabels | 'phase' | 'judged'>;

/** A gauge of one counter over another, both with the labels of shadowed requests. Has no value where the lower one is 0. */
export function createRatio(
  registry: Registry,
  { name, help, above, below }: { name: string; help: string; above: RequestCounter; below: RequestCounter },
): void {
  new Gauge({
    name: `crystalkv_${name}`,
    help,
    labelNames: ofShadowed.labels,
    registers: [registry],
    async collect() {
      this.reset();
      const parts = new Map((await above.get()).values.map(({ labels, value }) => [keyOf(labels), value]));
      for (const { labels, value } of (await below.get()).values) {
        if (value > 0) this.set(labels, (parts.get(keyOf(labels)) ?? 0) / value);
      }
    },
  });
}

/** No label holds a newline. */
function keyOf(labels: Partial<Record<string, string | number>>): string {
  return ofShadowed.labels.map((label) => labels[label]).join('\n');
}

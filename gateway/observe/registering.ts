import { type Aggregator, Counter, Gauge, Histogram, type Registry } from 'prom-client';

interface GaugeOptions<L extends string> {
  /** How the values of several workers become one; without it they are summed. */
  aggregator?: Aggregator;
  labelNames?: readonly L[];
  /** Calls `set` for each series that there is at the moment; without it the gauge is set when something happens. */
  collect?: (set: (labels: Partial<Record<L, string>>, value: number) => void) => void;
}

/** Makes metrics of `registry`. Units are in the names: seconds, bytes, ratio (0 to 1), total. */
export function registering(registry: Registry) {
  const registers = [registry];
  return {
    counter: <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
      new Counter({ name, help, labelNames: [...labelNames], registers }),
    /** `buckets` in seconds. */
    histogram: <L extends string = never>(
      name: string,
      help: string,
      buckets: readonly number[],
      labelNames: readonly L[] = [],
    ) => new Histogram({ name, help, buckets: [...buckets], labelNames: [...labelNames], registers }),
    gauge<L extends string = never>(name: string, help: string, options: GaugeOptions<L>): Gauge<L> {
      const { aggregator, labelNames = [], collect } = options;
      const gauge: Gauge<L> = new Gauge<L>({
        ...{ name, help, labelNames: [...labelNames], registers },
        ...(aggregator !== undefined && { aggregator }),
        ...(collect !== undefined && {
          collect() {
            gauge.reset();
            collect((labels, value) => gauge.set(labels, value));
          },
        }),
      });
      return gauge;
    },
  };
}

import { isDeepStrictEqual } from 'node:util';

const READ_MS = 5_000;

/** One sample of Prometheus' text format. */
export interface Sample {
  name: string;
  labels: Readonly<Record<string, string>>;
  value: number;
}

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The samples of a page in Prometheus' text format. */
export function parseMetrics(text: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    const match = line.startsWith('#') ? null : SAMPLE.exec(line);
    if (match === null) return [];
    const [, name = '', labels = '', value = ''] = match;
    return [{ name, labels: Object.fromEntries([...labels.matchAll(LABEL)].map(pair)), value: Number(value) }];
  });
}

const pair = ([, key = '', value = '']: RegExpExecArray): [string, string] => [key, value];

/** The samples of the page at `url`. Rejects when they cannot be read. */
export async function readMetrics(url: string): Promise<Sample[]> {
  const response = await fetch(url, { signal: AbortSignal.timeout(READ_MS) });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return parseMetrics(await response.text());
}

/** The sum of a metric's samples whose labels include these; 0 when there is none. */
export function total(samples: readonly Sample[], name: string, labels: Readonly<Record<string, string>> = {}): number {
  const wanted = Object.entries(labels);
  return samples
    .filter((sample) => sample.name === name && wanted.every(([key, value]) => sample.labels[key] === value))
    .reduce((sum, sample) => sum + sample.value, 0);
}

/** The value of one series, such as `name{route="/x"}` with all its labels; undefined when it is not there. */
export function valueOfSeries(samples: readonly Sample[], series: string): number | undefined {
  const [wanted] = parseMetrics(`${series} 0`);
  if (wanted === undefined) throw new Error(`${series} is not the name of a series`);
  return samples.find(({ name, labels }) => name === wanted.name && isDeepStrictEqual(labels, wanted.labels))?.value;
}

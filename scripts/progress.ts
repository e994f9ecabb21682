import { Presets, SingleBar } from 'cli-progress';

/** Shows how many of several things are done. */
export interface Progress {
  /** One more; its name, where it has one. */
  done(name?: string): void;
  close(): void;
}

/** A moving line on a terminal. Elsewhere a line for each thing that has a name. */
export function createProgress(title: string, total: number, output: NodeJS.WriteStream = process.stdout): Progress {
  const started = performance.now();
  const names: string[] = [];
  const format = '{title} [{bar}] {value}/{total} {names} {duration_formatted}';
  const bar = new SingleBar({ format, hideCursor: true, stream: output }, Presets.legacy);
  const shown = () => ({ title, names: names.join(', ') });
  bar.start(total, 0, shown());
  return {
    done(name) {
      if (name !== undefined) {
        names.push(name);
        const seconds = ((performance.now() - started) / 1000).toFixed(1);
        if (!output.isTTY) output.write(`${name} is ready after ${seconds} s\n`);
      }
      bar.increment(1, shown());
    },
    close: () => bar.stop(),
  };
}

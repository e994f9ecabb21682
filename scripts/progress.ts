const FRAMES = ['-', '\\', '|', '/'];
const FRAME_MS = 120;

/** Shows which of several things are still awaited. */
export interface Progress {
  done(name: string): void;
  close(): void;
}

/** One moving line on a terminal; elsewhere a line for each thing that is done. */
export function createProgress(names: readonly string[], output: NodeJS.WriteStream = process.stdout): Progress {
  const waiting = new Set(names);
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
  if (!output.isTTY) {
    output.write(`starting ${names.join(', ')}\n`);
    return {
      done: (name) => output.write(`${name} is ready after ${seconds()} s\n`),
      close: () => {},
    };
  }
  let frame = 0;
  const draw = () => {
    const marks = names.map((name) => `${name} ${waiting.has(name) ? FRAMES[frame % FRAMES.length] : 'ready'}`);
    output.write(`\r\x1b[2Kstarting  ${marks.join('   ')}   ${seconds()} s`);
    frame += 1;
  };
  const timer = setInterval(draw, FRAME_MS);
  draw();
  return {
    done: (name) => {
      waiting.delete(name);
      draw();
    },
    close: () => {
      clearInterval(timer);
      output.write('\n');
    },
  };
}

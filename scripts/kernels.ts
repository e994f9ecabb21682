/** Compiles the engine's kernels; see `--help`. */
import { readFileSync } from 'node:fs';
import asc from 'assemblyscript/asc';
import { runGenerator } from './generator.ts';
import { ROOT } from './processes.ts';

const BINARY = 'engine/kernels/kernels.wasm';

await runGenerator({
  name: 'kernels',
  about: `Compiles the engine's kernels, which are AssemblyScript, to ${BINARY}.`,
  make: async () => new Map([[BINARY, await compiled()]]),
});

async function compiled(): Promise<Uint8Array> {
  const emitted = new Map<string, Uint8Array>();
  const { error, stderr } = await asc.main(
    [
      'engine/kernels/assembly/index.ts',
      ...['--outFile', 'kernels.wasm', '--runtime', 'stub', '--enable', 'simd', '--importMemory', '--noExportMemory'],
      ...['-O3', '--noAssert', '--uncheckedBehavior', 'always'],
    ],
    {
      readFile: (name, base) => {
        try {
          return readFileSync(`${base === '.' ? ROOT : `${base}/`}${name}`, 'utf8');
        } catch {
          return null;
        }
      },
      writeFile: (name, content) => {
        emitted.set(name, typeof content === 'string' ? new TextEncoder().encode(content) : content);
      },
      listFiles: () => [],
    },
  );
  const binary = emitted.get('kernels.wasm');
  if (error !== null || binary === undefined) throw new Error(stderr.toString());
  return binary;
}

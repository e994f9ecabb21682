import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

/**
 * Compiles the engine's kernels (AssemblyScript) to engine/kernels/kernels.wasm.
 * With --check nothing is written: exit code 1 when the committed binary is not what the sources give.
 */
const root = fileURLToPath(new URL('../', import.meta.url));
const binary = `${root}engine/kernels/kernels.wasm`;

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
        return readFileSync(`${base === '.' ? root : `${base}/`}${name}`, 'utf8');
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
const compiled = emitted.get('kernels.wasm');
if (error !== null || compiled === undefined) {
  process.stderr.write(`${stderr.toString()}\n`);
  process.exitCode = 1;
} else if (process.argv.includes('--check')) {
  const same = Buffer.compare(readFileSync(binary), compiled) === 0;
  if (!same) process.stderr.write('engine/kernels/kernels.wasm is stale: run make gen\n');
  process.exitCode = same ? 0 : 1;
} else {
  writeFileSync(binary, compiled);
  process.stdout.write(`engine/kernels/kernels.wasm: ${compiled.length} bytes\n`);
}

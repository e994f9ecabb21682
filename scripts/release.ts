/** Makes what is published; see `--help`. */
import { cpSync, globSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { namesOf, runCommandLine } from './command-line.ts';
import { ROOT } from './processes.ts';
import { theVersion } from './release/versions.ts';
import { lastLines, runCommand } from './testing/command.ts';

const STEP_MS = 1_800_000;
const PARTS = ['package', 'wheel', 'images'] as const;
const TARGETS = ['gateway', 'policy-service', 'engine'] as const;

async function step(command: string, args: readonly string[], cwd = ROOT): Promise<void> {
  const result = await runCommand(command, args, { cwd, timeoutMs: STEP_MS });
  if (result.code !== 0) throw new Error(`${[command, ...args].join(' ')} failed\n${lastLines(result.output)}`);
}

const say = (text: string) => process.stdout.write(`${text}\n`);

/** From a copy: setuptools leaves a folder in what it builds. */
async function wheel(out: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-wheel-'));
  try {
    const source = join(folder, 'vllm-plugin');
    mkdirSync(source);
    for (const name of ['pyproject.toml', 'README.md', 'crystal_kv_vllm']) {
      cpSync(join(ROOT, 'vllm-plugin', name), join(source, name), {
        recursive: true,
        filter: (path) => !path.endsWith('__pycache__'),
      });
    }
    const hasUv = (await runCommand('uv', ['--version'])).code === 0;
    if (hasUv) await step('uv', ['build', '--quiet', '--wheel', '--out-dir', out, source]);
    else await step('python3', ['-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', out, source]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function images(version: string, registry: string | undefined): Promise<void> {
  const engine = await runCommand('docker', ['info'], { timeoutMs: 20_000 });
  if (engine.code !== 0) {
    say('images: left out, no Docker engine answers here');
    return;
  }
  const nameOf = (name: string) => `${registry === undefined ? '' : `${registry}/`}crystal-kv/${name}:${version}`;
  const build = (name: string, args: readonly string[]) =>
    step('docker', ['build', '--tag', nameOf(name), ...args, '.']);
  for (const target of TARGETS) await build(target, ['--file', 'deploy/Dockerfile', '--target', target]);
  await build('vllm', ['--file', 'deploy/vllm.Dockerfile']);
  const names = [...TARGETS, 'vllm'].map(nameOf);
  say(`images: ${names.join(', ')}`);
  if (registry === undefined) return;
  for (const name of names) await step('docker', ['push', name]);
  say(`pushed; install them with: helm install ck deploy/helm/crystal-kv --set images.registry=${registry}`);
}

await runCommandLine({
  name: 'release',
  about: 'Makes the npm package, the Python wheel and the images, all of one version.',
  options: {
    out: {
      type: 'string',
      default: join(ROOT, 'dist'),
      value: 'FOLDER',
      help: 'where package and wheel go (default: dist)',
    },
    push: {
      type: 'string',
      value: 'REGISTRY',
      help: 'name the images for this registry, and push them: registry.example/team',
    },
    only: { type: 'string', multiple: true, default: [] as string[], value: 'PART', help: PARTS.join(', ') },
  },
  notes: 'Without a Docker engine the images are left out, with a message.',
  run: ({ out, only, push }) => release(resolve(out), namesOf('only', only, PARTS), push),
});

async function release(out: string, parts: readonly (typeof PARTS)[number][], registry?: string): Promise<void> {
  const version = theVersion();
  mkdirSync(out, { recursive: true });
  for (const old of globSync('crystal[-_]kv*', { cwd: out })) rmSync(join(out, old));
  say(`version ${version}`);
  if (parts.includes('package')) await step('npm', ['pack', '--silent', '--pack-destination', out]);
  if (parts.includes('wheel')) await wheel(out);
  for (const file of globSync('crystal[-_]kv*', { cwd: out }).sort()) say(`made ${join(out, file)}`);
  if (parts.includes('images')) await images(version, registry);
}

import { globSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from '../processes.ts';
import { checkCommand, lastLines, runCommand } from './command.ts';
import { checkGeneratedProtocol } from './generated.ts';
import { runNodeSuite } from './node-suite.ts';
import { failure, type Outcome, type Say, type Suite, sum } from './outcome.ts';
import { PythonError, pythonEnvironment, runPytest } from './python.ts';

/** Folders of `test/` that must hold tests; others are found by themselves. */
const REQUIRED = [
  'bench',
  'dashboards',
  'deploy',
  'engine',
  'engine-http',
  'gateway',
  'gateway-keys',
  'gateway-proof',
  'model',
  'observability',
  'policy-service',
  'scripts',
  'system',
  'ui',
];
/** Folders whose tests start whole processes, one file after the other. */
const SLOW = new Set(['deploy', 'gateway-proof', 'observability', 'system', 'ui']);
const MODEL = join(ROOT, 'model');
const GATEWAY_PYTHON = join(ROOT, 'test/gateway-proof/python');
/** Folders with Python, whose rules are those of model/. */
const LINTED = [
  ['model', MODEL],
  ['test/gateway-proof/python', GATEWAY_PYTHON],
] as const;
const VLLM_TIMEOUT_MS = 3_000_000;
const DEPLOY_TOOLS_MS = 1_200_000;

/** Every suite of a test run, in the order in which they run. */
export function allSuites(): Suite[] {
  return [...CHECKS, ...folders().map(nodeSuite), ...PYTHON].sort((a, b) => Number(a.slow) - Number(b.slow));
}

const CHECKS: Suite[] = [
  {
    name: 'types',
    summary: 'TypeScript types of everything, tests included',
    slow: false,
    run: async () =>
      sum([
        await checkCommand('tsc', 'tsc', ['-p', '.']),
        await checkCommand('tsc of the live page', 'tsc', ['-p', 'gateway/ui/page']),
      ]),
  },
  {
    name: 'lint',
    summary: 'format, lint and import boundaries',
    slow: false,
    run: () => checkCommand('biome', 'biome', ['ci', '--colors=off', '.']),
  },
  {
    name: 'generated',
    summary: 'the protocol is well-formed; committed code and kernels are what their sources give',
    slow: false,
    run: async () =>
      sum([
        await checkCommand('buf lint', 'buf', ['lint']),
        await checkGeneratedProtocol(),
        await checkCommand('kernels.wasm', process.execPath, ['scripts/kernels.ts', '--check']),
        await checkCommand('common/profiles.schema.json', process.execPath, ['scripts/profile-schema.ts', '--check']),
        await checkCommand('docs/compatibility.md', process.execPath, ['scripts/compatibility.ts', '--check']),
        await checkCommand('docs/measured.md, README.md', process.execPath, ['bench/measured.ts', '--check']),
      ]),
  },
];

const PYTHON: Suite[] = [
  {
    name: 'python-lint',
    summary: 'ruff on Python: lint and format',
    slow: false,
    run: withPython('ruff', async (python) => {
      const outcomes: Outcome[] = [];
      for (const [name, cwd] of LINTED) {
        for (const args of [['check'], ['format', '--check']]) {
          const command = ['-m', 'ruff', ...args, '--no-cache', '.'];
          outcomes.push(await checkCommand(`ruff ${args[0]} in ${name}`, python, command, { cwd }));
        }
      }
      return sum(outcomes);
    }),
  },
  {
    name: 'python-types',
    // What trains needs torch, which is too large for a test run; its types are checked where it is installed.
    // The SDKs, which are large too, are not there either: what they give is of any type.
    summary: 'mypy on Python that needs no torch',
    slow: false,
    run: withPython('mypy', async (python) => {
      const mypy = ['-m', 'mypy', '--cache-dir=/dev/null'];
      const loose = ['--ignore-missing-imports', '--allow-subclassing-any'];
      const settings = join(MODEL, 'pyproject.toml');
      return sum([
        await checkCommand('mypy in model', python, [...mypy, 'reference.py', 'tests'], { cwd: MODEL }),
        await checkCommand(
          'mypy in test/gateway-proof/python',
          python,
          [...mypy, `--config-file=${settings}`, ...loose, '.'],
          { cwd: GATEWAY_PYTHON },
        ),
      ]);
    }),
  },
  {
    name: 'python-model',
    summary: 'pytest on model/',
    slow: false,
    run: withPython('pytest', (python) => runPytest(python, MODEL, 300_000)),
  },
  {
    name: 'gateway-python',
    summary: 'Python SDKs, a compliance suite and a fuzzer against the gateway',
    slow: true,
    run: withPython(
      'pytest',
      (python) => runPytest(python, GATEWAY_PYTHON, 600_000),
      join(GATEWAY_PYTHON, 'requirements.txt'),
    ),
  },
  {
    name: 'vllm',
    summary: 'pytest on vllm-plugin/, with a real vLLM on CPU',
    slow: true,
    run: async (say) => {
      say('needs an environment of about 6 GB, made once in the cache folder; then about 7 minutes');
      const made = await runCommand('scripts/vllm-env.sh', [], { timeoutMs: VLLM_TIMEOUT_MS });
      if (made.code !== 0) return failure('scripts/vllm-env.sh', lastLines(made.output));
      const python = made.output.trimEnd().split('\n').at(-1) ?? '';
      return await runPytest(python, join(ROOT, 'vllm-plugin'), VLLM_TIMEOUT_MS);
    },
  },
];

function folders(): string[] {
  const found = globSync('test/**/*.test.ts', { cwd: ROOT }).map((file) => dirname(file).split('/')[1] ?? '.');
  return [...new Set([...REQUIRED, ...found])].sort();
}

function nodeSuite(folder: string): Suite {
  const slow = SLOW.has(folder);
  const options = {
    folder: join('test', folder),
    concurrency: slow ? 1 : 2,
    // a test of deploy/ may install packages
    patienceMs: folder === 'deploy' ? 900_000 : slow ? 300_000 : 120_000,
  };
  const run: Suite['run'] = async (say) => {
    if (folder === 'deploy') await makeDeployTools(say);
    return await runNodeSuite(options, say);
  };
  return { name: folder, summary: `test/${folder}`, slow, run };
}

/** The first time this takes longer than a file's tests may. Where it fails, the tests that need the tools say why. */
async function makeDeployTools(say: Say): Promise<void> {
  say('needs helm and kubeconform, which are made once in the cache folder, in some minutes');
  await runCommand('scripts/deploy-tools.sh', [], { timeoutMs: DEPLOY_TOOLS_MS });
}

function withPython(name: string, run: (python: string) => Promise<Outcome>, lock?: string): Suite['run'] {
  return async (say: Say) => {
    try {
      return await run(await pythonEnvironment(say, lock));
    } catch (error) {
      if (error instanceof PythonError) return failure(name, error.message);
      throw error;
    }
  };
}

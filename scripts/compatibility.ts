/** Which versions of gateway, plugin and vLLM go together; see `--help`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROTOCOL } from '../common/protocol.ts';
import { runGenerator } from './generator.ts';
import { ROOT } from './processes.ts';

const FILE = 'docs/compatibility.md';
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');

function find(path: string, pattern: RegExp): string {
  const found = pattern.exec(read(path))?.[1];
  if (found === undefined) throw new Error(`${path} has nothing like ${pattern}`);
  return found;
}

/** The versions of vLLM that the plugin takes: those that its tests were run with. */
export function testedVersions(): string[] {
  const list = find('vllm-plugin/crystal_kv_vllm/compat.py', /^TESTED_VERSIONS = \((.*)\)$/m);
  const found = [...list.matchAll(/"([^"]+)"/g)].map(([, version]) => version as string);
  if (found.length === 0) throw new Error('compat.py lists no tested version');
  return found;
}

export function compatibilityPage(): string {
  const version = (JSON.parse(read('package.json')) as { version: string }).version;
  const plugin = find('vllm-plugin/pyproject.toml', /^version = "(.*)"$/m);
  const python = find('vllm-plugin/pyproject.toml', /^requires-python = "(.*)"$/m);
  const node = (JSON.parse(read('package.json')) as { dependencies: Record<string, string> }).dependencies['node'];
  const kubernetes = find('deploy/helm/crystal-kv/Chart.yaml', /^kubeVersion: "(.*)"$/m).replace('-0', '');
  const rows = testedVersions().map((vllm) => `| ${version} | ${version} | ${plugin} | ${vllm} |`);
  return `# Compatible versions
Generated from the code by \`scripts/compatibility.ts\`; \`make gen\` regenerates it.

| gateway | policy service, engine | plugin | vLLM |
|---|---|---|---|
${rows.join('\n')}

* **vLLM** in any other version runs as stock behind the gateway, and nothing is evicted. The plugin says so once in the log and
  in \`crystalkv_engine_refused{feature="version"}\`. [The plugin's README](../vllm-plugin/README.md#what-was-tested) says what was
  run with each version, and on which hardware.
* **Engines and policy service** agree on a protocol version when they connect; this release supports
  ${PROTOCOL.min} to ${PROTOCOL.max}. Without a common version, the policy service refuses the stream and says why, and
  the engine continues as stock.
* **The gateway** depends on neither: any OpenAI server can be a backend.
* Node ${node} (in the images; from source, any Node >= 20 installs it), Python ${python} for the plugin,
  Kubernetes ${kubernetes} for the chart, Docker Compose >= 2.20.

The npm package, the wheel, the chart and the images share one version number; a test compares them.
`;
}

if (import.meta.main) {
  await runGenerator({
    name: 'compatibility',
    about: `Writes ${FILE} from what the code says.`,
    make: async () => new Map([[FILE, compatibilityPage()]]),
  });
}

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';
import { ROOT } from '../../scripts/processes.ts';

export const CHART = join(ROOT, 'deploy/helm/crystal-kv');
const SCHEMAS = join(ROOT, 'test/deploy/schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json');
/** helm as `go install` makes it takes the cluster for an old one. */
const KUBERNETES = ['--kube-version', '1.36.0'];

const made = spawnSync(join(ROOT, 'scripts/deploy-tools.sh'), { encoding: 'utf8', timeout: 240_000 });
const folder = made.stdout.trim();
/** Why the chart cannot be tested; false: it can. */
export const noTools: string | false =
  made.status === 0
    ? false
    : `scripts/deploy-tools.sh: ${made.stderr.trim().split('\n').at(-1) ?? 'did not end in time'}`;

/** An object of Kubernetes. */
export interface Manifest {
  kind: string;
  metadata: { name: string; labels?: Record<string, string> };
  spec: Record<string, unknown>;
  data?: Record<string, string>;
}

export function tool(name: 'helm' | 'kubeconform', args: readonly string[], input?: string) {
  const { status, stdout, stderr } = spawnSync(join(folder, name), args, { encoding: 'utf8', input, timeout: 60_000 });
  // helm says of every symbolic link that it follows it
  return { status, output: `${stdout}${stderr.replaceAll(/^walk\.go:.*\n/gm, '')}`, stdout };
}

/** `helm template` with these values; what helm says is in the error it throws. */
export function render(values: object = {}): { text: string; manifests: Manifest[] } {
  const place = mkdtempSync(join(tmpdir(), 'crystal-kv-chart-'));
  const file = join(place, 'values.yaml');
  try {
    writeFileSync(file, stringify(values));
    const args = ['template', 'ck', CHART, '--namespace', 'llm', '--values', file, ...KUBERNETES];
    const { status, stdout, output } = tool('helm', args);
    if (status !== 0) throw new Error(output);
    const manifests = parseAllDocuments(stdout).map((it) => it.toJS() as Manifest | null);
    return { text: stdout, manifests: manifests.filter((it) => it !== null) };
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

/** What kubeconform says against Kubernetes' and the Prometheus operator's schemas, unknown fields refused. */
export const conforms = (text: string) =>
  tool('kubeconform', ['-strict', '-summary', '-schema-location', SCHEMAS, '-'], text);

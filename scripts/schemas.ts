/** Makes the schemas that the deployment is tested against; see `--help`. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { runCommandLine } from './command-line.ts';
import { ROOT } from './processes.ts';

const KUBERNETES = 'k8s.io/kubernetes@v1.36.3';
const PROMETHEUS_OPERATOR = 'github.com/prometheus-operator/prometheus-operator@v0.85.0';
const COMPOSE = 'github.com/compose-spec/compose-go/v2@v2.16.2';
/** Kinds that the chart makes, by their name in Kubernetes' OpenAPI definitions. */
const KINDS = [
  'io.k8s.api.apps.v1.Deployment',
  'io.k8s.api.apps.v1.StatefulSet',
  'io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler',
  'io.k8s.api.core.v1.ConfigMap',
  'io.k8s.api.core.v1.Pod',
  'io.k8s.api.core.v1.Secret',
  'io.k8s.api.core.v1.Service',
  'io.k8s.api.core.v1.ServiceAccount',
  'io.k8s.api.networking.v1.Ingress',
  'io.k8s.api.networking.v1.NetworkPolicy',
  'io.k8s.api.policy.v1.PodDisruptionBudget',
];
const FOLDER = join(ROOT, 'test/deploy/schemas');
const REF = '#/definitions/';

type Json = Record<string, unknown>;

/** The folder of a module in Go's cache, downloaded if it is not there. */
function moduleFolder(module: string): string {
  const result = spawnSync('go', ['mod', 'download', '-json', module], { encoding: 'utf8' });
  const answer = JSON.parse(result.stdout || '{}') as { Dir?: string; Error?: string };
  if (answer.Dir === undefined) throw new Error(`go mod download ${module}: ${answer.Error ?? result.stderr}`);
  return answer.Dir;
}

/** A definition as a strict JSON schema: no unknown fields, no texts, integers or strings where both are allowed. */
function strict(value: unknown, refs: (name: string) => void): unknown {
  if (Array.isArray(value)) return value.map((item) => strict(item, refs));
  if (typeof value !== 'object' || value === null) return value;
  const node = value as Json;
  if (node['format'] === 'int-or-string' || node['x-kubernetes-int-or-string'] === true) {
    return { type: ['integer', 'string'] };
  }
  if (typeof node['$ref'] === 'string') {
    const name = node['$ref'].slice(REF.length);
    refs(name);
    return { $ref: `_definitions.json${REF}${name}` };
  }
  const schema: Json = {};
  for (const [key, child] of Object.entries(node)) {
    if (key === 'description' || key === 'format' || key.startsWith('x-kubernetes-') || key === 'default') continue;
    schema[key] =
      key === 'properties'
        ? Object.fromEntries(Object.entries(child as Json).map(([name, it]) => [name, strict(it, refs)]))
        : strict(child, refs);
  }
  const open = 'additionalProperties' in schema || node['x-kubernetes-preserve-unknown-fields'] === true;
  if ('properties' in schema && !open) schema['additionalProperties'] = false;
  return schema;
}

const write = (name: string, schema: unknown) =>
  writeFileSync(join(FOLDER, name), `${JSON.stringify(schema, undefined, 1)}\n`);

function kubernetes(): void {
  const file = join(moduleFolder(KUBERNETES), 'api/openapi-spec/swagger.json');
  const all = (JSON.parse(readFileSync(file, 'utf8')) as { definitions: Record<string, Json> }).definitions;
  const definitions: Json = {};
  const queue = [...KINDS];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (name in definitions) continue;
    const source = all[name];
    if (source === undefined) throw new Error(`${KUBERNETES} has no definition ${name}`);
    const schema = strict(source, (ref) => queue.push(ref)) as Json;
    const names = source['x-kubernetes-group-version-kind'] as { group: string; version: string; kind: string }[];
    if (KINDS.includes(name) && names[0] !== undefined) {
      const { group, version, kind } = names[0];
      const properties = schema['properties'] as Json;
      properties['apiVersion'] = { const: group === '' ? version : `${group}/${version}` };
      properties['kind'] = { const: kind };
      schema['required'] = [...((schema['required'] as string[] | undefined) ?? []), 'apiVersion', 'kind'];
      const suffix = [group.split('.')[0], version].filter((part) => part !== '').join('-');
      write(`${kind.toLowerCase()}-${suffix}.json`, { $ref: `_definitions.json${REF}${name}` });
    }
    definitions[name] = schema;
  }
  const sorted = Object.fromEntries(Object.entries(definitions).sort(([a], [b]) => (a < b ? -1 : 1)));
  write('_definitions.json', { definitions: sorted });
}

function prometheusOperator(): void {
  const folder = join(moduleFolder(PROMETHEUS_OPERATOR), 'example/prometheus-operator-crd');
  for (const kind of ['servicemonitor', 'podmonitor', 'prometheusrule']) {
    const crd = parse(readFileSync(join(folder, `monitoring.coreos.com_${kind}s.yaml`), 'utf8')) as {
      spec: { versions: { name: string; schema: { openAPIV3Schema: Json } }[] };
    };
    const version = crd.spec.versions[0];
    if (version === undefined) throw new Error(`${PROMETHEUS_OPERATOR}: ${kind} has no version`);
    const schema = strict(version.schema.openAPIV3Schema, () => {}) as { properties: Json };
    schema.properties['metadata'] = { type: 'object' };
    write(`${kind}-monitoring-${version.name}.json`, schema);
  }
}

await runCommandLine({
  name: 'schemas',
  about: `Makes the schemas that the deployment is tested against, in test/deploy/schemas, from the Go modules that carry them,
which it downloads. Run by hand to take newer versions; the result is committed, so that the tests need no download.`,
  options: {},
  run: async () => makeAll(),
});

function makeAll(): void {
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  kubernetes();
  prometheusOperator();
  writeFileSync(
    join(FOLDER, 'compose-spec.json'),
    readFileSync(join(moduleFolder(COMPOSE), 'schema/compose-spec.json')),
  );
  writeFileSync(
    join(FOLDER, 'README.md'),
    `# Schemas
Made by \`scripts/schemas.ts\`; not written by hand. All three sources are under the Apache License 2.0.

| file | from |
|---|---|
| \`_definitions.json\` and the kinds that point into it | \`api/openapi-spec/swagger.json\` of ${KUBERNETES}, only what the chart's kinds need, unknown fields refused |
| \`*-monitoring-v1.json\` | \`example/prometheus-operator-crd\` of ${PROMETHEUS_OPERATOR}, unknown fields refused |
| \`compose-spec.json\` | \`schema/compose-spec.json\` of ${COMPOSE}, unchanged |
`,
  );
  process.stdout.write(`${FOLDER} is made\n`);
}

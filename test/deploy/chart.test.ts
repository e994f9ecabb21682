import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { loadSection } from '../../common/config.ts';
import { EngineConfig } from '../../engine/config.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { checkExposure, policyServiceSchema } from '../../policy-service/config.ts';
import { ROOT } from '../../scripts/processes.ts';
import { CHART, conforms, type Manifest, noTools, render, tool } from './chart.ts';

const options = { skip: noTools };
const EVERYTHING = {
  serviceMonitor: { enabled: true, labels: { release: 'prometheus' } },
  prometheusRule: { enabled: true },
  gateway: { ingress: { enabled: true, host: 'llm.example.org', className: 'nginx', tlsSecret: 'llm-tls' } },
};
const CASES: Readonly<Record<string, object>> = {
  'the defaults': {},
  everything: EVERYTHING,
  'the embedded engine': { ...EVERYTHING, backend: { mode: 'embedded', replicas: 2 } },
  'no autoscaling, no volumes, no policies': {
    gateway: { autoscaling: { enabled: false }, podDisruptionBudget: { enabled: false } },
    backend: { vllm: { storage: { enabled: false }, hfTokenSecret: 'hf', gpus: 4 } },
    redis: { storage: { enabled: false } },
    networkPolicy: { enabled: false },
    dashboards: { enabled: false },
  },
  'a Redis that is there, keys in a Secret, a policy service on loopback': {
    gateway: { keys: { store: 'file', existingSecret: 'keys' } },
    redis: { enabled: false, existingSecret: 'redis-url' },
    policyService: { exposeToGateway: false },
  },
};

interface Container {
  name: string;
  image: string;
  env?: { name: string }[];
  securityContext: {
    readOnlyRootFilesystem?: boolean;
    allowPrivilegeEscalation?: boolean;
    capabilities?: { drop?: string[] };
  };
  resources: { limits?: { memory?: string } };
}
interface PodSpec {
  containers: Container[];
  initContainers?: (Container & { restartPolicy?: string })[];
  securityContext: { runAsNonRoot?: boolean };
  automountServiceAccountToken?: boolean;
}
const podsOf = (manifests: Manifest[]) =>
  manifests
    .filter(({ kind }) => kind === 'Deployment' || kind === 'StatefulSet')
    .map((it) => (it.spec['template'] as { spec: PodSpec }).spec);

test('helm lints the chart without a warning', options, () => {
  const { status, output } = tool('helm', ['lint', '--strict', CHART]);
  assert.equal(status, 0, output);
  assert.doesNotMatch(output, /\[(WARNING|ERROR)\]/);
});

for (const [name, values] of Object.entries(CASES)) {
  test(`with ${name}: everything is what Kubernetes allows, and every pod is hardened`, options, () => {
    const { text, manifests } = render(values);
    const checked = conforms(text);
    assert.equal(checked.status, 0, checked.output);
    assert.match(checked.output, /Skipped: 0/);
    for (const pod of podsOf(manifests)) {
      assert.equal(pod.securityContext.runAsNonRoot, true);
      assert.equal(pod.automountServiceAccountToken, false);
      for (const container of [...pod.containers, ...(pod.initContainers ?? [])]) {
        assert.match(container.image, /:\d+\.\d+\.\d+(-alpine)?$/);
        assert.equal(container.securityContext.readOnlyRootFilesystem, true);
        assert.equal(container.securityContext.allowPrivilegeEscalation, false);
        assert.deepEqual(container.securityContext.capabilities?.drop, ['ALL']);
        assert.ok(container.resources.limits?.memory !== undefined, container.name);
      }
    }
  });

  test(`with ${name}: the configuration is one that all three programs take`, options, () => {
    const { manifests } = render(values);
    const text = manifests.find(({ kind, data }) => kind === 'ConfigMap' && data?.['crystal-kv.yaml'])?.data;
    const file = parse(text?.['crystal-kv.yaml'] ?? '') as Record<string, unknown>;
    const given = podsOf(manifests).flatMap((pod) => [...pod.containers, ...(pod.initContainers ?? [])]);
    const env: Record<string, string> = {};
    for (const { name: variable } of given.flatMap((it) => it.env ?? [])) {
      if (variable.endsWith('TOKEN')) env[variable] = 'a-token-of-the-secret';
      if (variable.endsWith('REDIS_URL')) env[variable] = 'redis://redis:6379';
    }
    const gateway = loadSection('gateway', gatewaySchema, file, env);
    assert.deepEqual(
      gateway.backends.map((it) => ('dns' in it ? [it.dns, it.port] : it)),
      [['ck-crystal-kv-backend.llm.svc', 8000]],
    );
    assert.equal(loadSection('engine', EngineConfig, file, env).policy_address, '127.0.0.1:50051');
    checkExposure(loadSection('policy_service', policyServiceSchema, file, env));
  });
}

test(
  'the policy service is a sidecar of the engine, and both are found under the name that gateways ask for',
  options,
  () => {
    const { manifests } = render();
    const set = manifests.find(
      ({ kind, metadata }) => kind === 'StatefulSet' && metadata.name === 'ck-crystal-kv-backend',
    );
    assert.ok(set !== undefined);
    const pod = (set.spec['template'] as { spec: PodSpec }).spec;
    assert.deepEqual(
      pod.initContainers?.map(({ name, restartPolicy }) => [name, restartPolicy]),
      [['policy-service', 'Always']],
    );
    const service = manifests.find(
      ({ kind, metadata }) => kind === 'Service' && metadata.name === set.spec['serviceName'],
    );
    assert.equal(service?.spec['clusterIP'], 'None');
    const labels = (set.spec['template'] as { metadata: { labels: object } }).metadata.labels;
    assert.deepEqual(service?.spec['selector'], labels);
  },
);

test('values over the configuration win, and enabled: false turns evictions off', options, () => {
  const { manifests } = render({
    enabled: false,
    config: { policy_service: { default_profile: 'shadow' }, gateway: { drain_ms: 7 } },
  });
  const file = manifests.find(({ data }) => data?.['crystal-kv.yaml'])?.data?.['crystal-kv.yaml'] ?? '';
  const { gateway, policy_service: service } = parse(file) as { gateway: object; policy_service: object };
  assert.deepEqual(service, { ...service, default_profile: 'shadow', enabled: false });
  assert.deepEqual(gateway, { ...gateway, drain_ms: 7, host: '0.0.0.0' });
});

test('what cannot work is refused with a sentence', options, () => {
  assert.throws(() => render({ gateway: { keys: { store: 'none' } } }), /gateway\.allowUnauthenticated: true/);
  assert.throws(() => render({ gateway: { keys: { store: 'file' } } }), /gateway\.keys\.existingSecret/);
  assert.throws(() => render({ redis: { enabled: false } }), /redis\.existingSecret/);
  assert.throws(() => render({ gateway: { replica: 3 } }), /replica/);
  assert.throws(() => render({ backend: { mode: 'gpu' } }), /embedded/);
});

test('the dashboards and rules of the chart are those of the repository', options, () => {
  const { manifests } = render(EVERYTHING);
  const dashboards = readdirSync(join(ROOT, 'deploy/grafana/dashboards')).filter((name) => name.endsWith('.json'));
  assert.ok(dashboards.length > 0);
  for (const name of dashboards) {
    const map = manifests.find(({ kind, data }) => kind === 'ConfigMap' && data?.[name] !== undefined);
    assert.equal(map?.data?.[name], readFileSync(join(ROOT, 'deploy/grafana/dashboards', name), 'utf8'));
  }
  const rules = readdirSync(join(ROOT, 'deploy/prometheus/rules')).filter((name) => name.endsWith('.yml'));
  const groups = (it: unknown) => (it as { groups: { name: string }[] }).groups.map(({ name }) => name);
  const rendered = manifests.filter(({ kind }) => kind === 'PrometheusRule').flatMap(({ spec }) => groups(spec));
  const committed = rules.flatMap((name) =>
    groups(parse(readFileSync(join(ROOT, 'deploy/prometheus/rules', name), 'utf8'))),
  );
  assert.deepEqual(rendered.sort(), committed.sort());
  assert.ok(committed.length > 0);
});

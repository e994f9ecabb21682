import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { parse } from 'yaml';
import { loadSection, optionsOf } from '../../common/config.ts';
import { EngineConfig } from '../../engine/config.ts';
import { gatewaySchema } from '../../gateway/config.ts';
import { checkExposure, policyServiceSchema } from '../../policy-service/config.ts';
import { ROOT } from '../../scripts/processes.ts';
import { active, committedEnv, loadCompose, namesOf } from './compose.ts';

const compose = loadCompose();
const services = Object.entries(compose.services);
const COMMON = ['token', 'policy-service', 'gateway', 'redis', 'prometheus', 'grafana'];

test('the file is what the Compose specification allows', () => {
  const schema = JSON.parse(readFileSync(join(ROOT, 'test/deploy/schemas/compose-spec.json'), 'utf8'));
  const ajv = new Ajv2020({ allErrors: true, strict: false });
  formats.default(ajv);
  const validate = ajv.compile(schema);
  assert.ok(validate(compose), ajv.errorsText(validate.errors, { separator: '\n' }));
  assert.ok(!validate({ services: { a: { imagee: 'x' } } }), 'the schema refuses what it does not know');
});

test('the committed .env starts the embedded engine; each other profile starts its own backend in its place', () => {
  const started = (profile: string) => active(compose, [profile]).map(([name]) => name);
  assert.equal(committedEnv()['COMPOSE_PROFILES'], 'embedded');
  assert.deepEqual(started('embedded').sort(), [...COMMON, 'engine'].sort());
  assert.deepEqual(started('gpu').sort(), [...COMMON, 'vllm'].sort());
  assert.deepEqual(started('cpu-vllm').sort(), [...COMMON, 'vllm-cpu'].sort());
  for (const profile of ['embedded', 'gpu', 'cpu-vllm']) {
    const backends = active(compose, [profile]).filter(([name, it]) => namesOf(name, it).includes('backend'));
    assert.equal(backends.length, 1, profile);
  }
});

test('variables reach vLLM: model, token, GPUs, options', () => {
  const suffix = '\n</think>\n\n';
  const options = { GPU_COUNT: '4', VLLM_ARGS: '--max-model-len=4096', CRYSTALKV_PROBE_SUFFIX: suffix };
  const given = { MODEL: 'org/model', HF_TOKEN: 'hf_x', ...options };
  const { vllm, 'vllm-cpu': onCpu } = loadCompose(given).services;
  assert.match(`${vllm?.command}`, /^org\/model .*--tensor-parallel-size 4 .*--max-model-len=4096$/s);
  assert.match(`${onCpu?.command}`, /^org\/model .*--max-model-len=4096$/s);
  assert.equal(vllm?.environment?.['HF_TOKEN'], 'hf_x');
  assert.equal(vllm?.environment?.['CRYSTALKV_PROBE_SUFFIX'], suffix);
  assert.match(JSON.stringify(vllm?.deploy), /"driver":"nvidia","count":"4"/);
});

test('options fit the model: the parser of the default model is not that of another', () => {
  for (const name of ['vllm', 'vllm-cpu']) {
    assert.match(`${compose.services[name]?.command}`, /^Qwen\/Qwen3-[\d.]+B --reasoning-parser=qwen3 --host/);
    assert.doesNotMatch(`${loadCompose({ MODEL: 'org/model' }).services[name]?.command}`, /parser/);
  }
});

test('every variable that the header names is passed on, and keys can be switched on', () => {
  const text = readFileSync(join(ROOT, 'docker-compose.yml'), 'utf8');
  const header = text.slice(0, text.indexOf('\nname:'));
  const named = [...header.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b/g)].map(([name]) => name);
  assert.ok(named.length > 8, named.join());
  const used = text.slice(header.length);
  for (const name of named.filter((one) => one !== 'COMPOSE_PROFILES')) assert.ok(used.includes(`\${${name}:-`), name);
  const given = { CRYSTALKV_GATEWAY_KEYS_STORE: 'redis', CRYSTALKV_ENABLED: '0', GATEWAY_ADDRESS: '0.0.0.0:80' };
  const { gateway, 'policy-service': policy } = loadCompose(given).services;
  assert.equal(gateway?.environment?.['CRYSTALKV_GATEWAY_KEYS_STORE'], 'redis');
  assert.deepEqual(gateway?.ports, ['0.0.0.0:80:8080']);
  assert.equal(policy?.environment?.['CRYSTALKV_ENABLED'], '0');
});

for (const [name, service] of services) {
  test(`${name}: hardened, limited, pinned, and published on loopback only`, () => {
    assert.equal(service.read_only, true);
    assert.deepEqual(service.cap_drop, ['ALL']);
    assert.deepEqual(service.security_opt, ['no-new-privileges:true']);
    assert.match(service.image, /:v?\d+\.\d+\.\d+(-alpine)?$/);
    const limits = service.deploy?.resources?.limits;
    assert.ok(limits?.memory !== undefined && limits.pids !== undefined, 'memory and pids are limited');
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/);
    for (const volume of service.volumes ?? []) {
      const [source = ''] = volume.split(':');
      if (!source.startsWith('.')) assert.ok(source in compose.volumes, volume);
      else {
        assert.match(volume, /:ro$/);
        assert.ok(existsSync(join(ROOT, source)), `${source} is there to be mounted`);
      }
    }
  });

  test(`${name}: waits for the health of what has one, and for the end of what ends`, () => {
    for (const [other, { condition, required }] of Object.entries(service.depends_on ?? {})) {
      const target = compose.services[other];
      assert.ok(target !== undefined, other);
      if (target.healthcheck?.disable) assert.equal(condition, 'service_completed_successfully');
      else if (condition === 'service_healthy')
        assert.ok(target.build !== undefined || target.healthcheck !== undefined);
      assert.equal(required ?? true, target.profiles === undefined, `${other}: required unless a profile chooses it`);
    }
  });
}

test('what gateway, policy service and engine are told are options of theirs, and allow their addresses', () => {
  const sections = {
    gateway: ['gateway', gatewaySchema],
    'policy-service': ['policy_service', policyServiceSchema],
    engine: ['engine', EngineConfig],
  } as const;
  for (const [name, [section, schema]] of Object.entries(sections)) {
    const env = { ...compose.services[name]?.environment };
    const options = optionsOf(section, schema);
    const known = options.flatMap((option) => (option.secret ? [option.env, `${option.env}_FILE`] : [option.env]));
    for (const variable of Object.keys(env))
      assert.ok(known.includes(variable) || variable === 'CRYSTALKV_CONFIG', `${name}: ${variable}`);
    for (const { env: variable } of options) {
      if (`${variable}_FILE` in env) {
        delete env[`${variable}_FILE`];
        env[variable] = 'a-token-of-the-init-step';
      }
    }
    const config: unknown = loadSection(section, schema, {}, env);
    assert.equal((config as { host: string }).host, '0.0.0.0');
    if (name === 'policy-service') checkExposure(config as Parameters<typeof checkExposure>[0]);
  }
});

test('no secret is committed, and none has a default', () => {
  assert.equal(committedEnv()['HF_TOKEN'], '');
  for (const [name, { environment = {} }] of services) {
    for (const [variable, value] of Object.entries(environment)) {
      if (/TOKEN|PASSWORD|SECRET|KEY/.test(variable) && !/(_FILE|_KEYS_STORE)$/.test(variable))
        assert.equal(value, '', `${name}: ${variable}`);
    }
  }
});

test('Prometheus looks for services of the file, at the ports where they answer', () => {
  const text = readFileSync(join(ROOT, 'deploy/prometheus/prometheus.yml'), 'utf8');
  const config = parse(text) as { scrape_configs: { dns_sd_configs?: { names: string[]; port: number }[] }[] };
  const wanted = config.scrape_configs.flatMap((it) => it.dns_sd_configs ?? []);
  assert.ok(wanted.length >= 4);
  const ports: Record<string, number[]> = {
    gateway: [Number(compose.services['gateway']?.environment?.['CRYSTALKV_GATEWAY_METRICS_PORT'])],
    'policy-service': [9091],
    engine: [8000],
    vllm: [8000, 9092],
  };
  const names = services.flatMap(([name, service]) => namesOf(name, service));
  for (const {
    names: [name = ''],
    port,
  } of wanted) {
    assert.ok(names.includes(name) && ports[name]?.includes(port), `${name}:${port}`);
  }
});

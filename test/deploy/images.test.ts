import assert from 'node:assert/strict';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { freePorts } from '../../scripts/ports.ts';
import { ROOT } from '../../scripts/processes.ts';
import { run } from './images/container.ts';
import { contextFiles } from './images/context.ts';
import { build, inside, snapshot } from './images/image.ts';
import { ourBuilder } from './images/ours.ts';

const builder = ourBuilder();
after(() => builder.close());

const MIB = 1024 * 1024;
/** What may be in /app beside the base image, in MiB; OpenTelemetry's libraries are a third of it. */
const LARGEST = 110;
const PORTS = {
  gateway: ['CRYSTALKV_GATEWAY_PORT'],
  'policy-service': ['CRYSTALKV_POLICY_SERVICE_METRICS_PORT', 'CRYSTALKV_POLICY_SERVICE_PORT'],
  engine: ['CRYSTALKV_ENGINE_PORT'],
} as const;

test('the build sees what the images need, and neither tests nor secrets nor what was installed here', () => {
  const files = contextFiles(ROOT);
  assert.ok(files.includes('gateway/main.ts') && files.includes('model/crystal-mini/model.safetensors'));
  const strange = files.filter((file) =>
    /^(node_modules|\.git|test|docs|bench)\/|^\.env|__pycache__|keys.*\.json$/.test(file),
  );
  assert.deepEqual(strange, []);
});

for (const [name, variables] of Object.entries(PORTS)) {
  test(`${name}: its steps install, it starts without rights, gets healthy, writes nothing and ends on SIGTERM`, async () => {
    const image = await build(builder, name);
    assert.equal(image.user, 'node');
    assert.ok(image.ports.length > 0 && image.healthcheck.length > 0);
    const before = snapshot(image.root);
    const ports = await freePorts(variables.length);
    const env = Object.fromEntries(variables.map((variable, index) => [variable, `${ports[index]}`]));
    const container = await run(image, { env });
    await container.healthy().finally(async () => assert.equal(await container.stop(), 0, container.output()));
    assert.deepEqual(snapshot(image.root), before);
  });

  test(`${name}: the image holds this program and production packages only`, async () => {
    const image = await build(builder, name);
    const others = Object.keys(PORTS).filter((other) => other !== name);
    const found = readdirSync(inside(image, '.'));
    assert.ok(found.includes(name));
    for (const other of [...others, 'test', 'bench', 'scripts/run.ts'])
      assert.ok(!existsSync(inside(image, other)), other);
    const packages = readdirSync(inside(image, 'node_modules'));
    for (const unwanted of ['typescript', '@biomejs', 'playwright-core'])
      assert.ok(!packages.includes(unwanted), unwanted);
    const size = sizeOf(inside(image, '.')) / MIB;
    assert.ok(size < LARGEST, `${size.toFixed(1)} MiB in /app, at most ${LARGEST}`);
  });
}

function sizeOf(folder: string): number {
  let sum = 0;
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    if (stat?.isFile()) sum += stat.size;
  }
  return sum;
}

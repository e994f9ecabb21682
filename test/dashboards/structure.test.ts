import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { z } from 'zod';
import { dashboardFiles } from '../../deploy/grafana/all.ts';

/** What Grafana needs of a dashboard, and what we want of it. Grafana itself is not run by the tests. */
const datasource = z.object({ type: z.literal('prometheus'), uid: z.literal('$datasource') });
const gridPos = z.object({
  x: z.int().min(0).max(23),
  y: z.int().min(0),
  w: z.int().min(1).max(24),
  h: z.int().min(1),
});
const row = z.object({ type: z.literal('row'), id: z.int().min(1), title: z.string().min(1), gridPos });
const panel = z.object({
  type: z.enum(['timeseries', 'stat']),
  id: z.int().min(1),
  title: z.string().min(1),
  description: z.string().min(20),
  gridPos,
  datasource,
  targets: z
    .array(
      z.object({
        refId: z.string().regex(/^[A-Z]$/),
        expr: z.string().min(1),
        legendFormat: z.string().min(1),
        datasource,
      }),
    )
    .min(1),
  fieldConfig: z.object({ defaults: z.object({ unit: z.string().min(1) }) }),
});
const variable = z.object({
  type: z.enum(['datasource', 'query', 'custom']),
  name: z.string(),
  label: z.string().min(1),
  datasource: datasource.optional(),
  query: z.union([z.string(), z.object({ query: z.string() })]),
});
const schema = z.object({
  uid: z.string().regex(/^[a-z0-9-]{1,40}$/),
  title: z.string().min(1),
  description: z.string().min(1),
  schemaVersion: z.int().min(36),
  tags: z.array(z.string()),
  templating: z.object({ list: z.array(variable) }),
  links: z.array(z.object({ type: z.literal('dashboards'), tags: z.array(z.string()), keepTime: z.literal(true) })),
  panels: z.array(z.discriminatedUnion('type', [row, panel])),
});

const dashboards = dashboardFiles().map(([name, text]) => ({ name, text, board: schema.parse(JSON.parse(text)) }));
const panelsOf = ({ board }: (typeof dashboards)[number]) => board.panels.filter((one) => one.type !== 'row');

suite('every dashboard', () => {
  test('has an identity of its own', () => {
    assert.equal(new Set(dashboards.map(({ board }) => board.uid)).size, dashboards.length);
    assert.equal(new Set(dashboards.map(({ board }) => board.title)).size, dashboards.length);
    assert.equal(dashboards.length, 4);
  });

  test('has variables for datasource, model and engine', () => {
    for (const { name, board } of dashboards) {
      const names = board.templating.list.map((one) => one.name);
      assert.deepEqual(names.slice(0, 3), ['datasource', 'model', 'engine'], name);
      assert.equal(board.templating.list[0]?.type, 'datasource', name);
    }
  });

  test('uses no variable that it has not, and each one that it has', () => {
    const given = new Set(['__rate_interval', '__range', '__all']);
    for (const { name, text, board } of dashboards) {
      const known = new Set(board.templating.list.map((one) => one.name));
      const used = new Set([...text.matchAll(/\$\{?(\w+)/g)].map((match) => match[1] ?? ''));
      for (const one of used) assert.ok(known.has(one) || given.has(one), `${name}: $${one}`);
      for (const one of known) assert.ok(used.has(one), `${name}: $${one} is not used`);
    }
  });

  test('links to the others by a tag that all of them have', () => {
    for (const { name, board } of dashboards) {
      const tags = board.links.flatMap((link) => link.tags);
      assert.ok(tags.length > 0, name);
      for (const other of dashboards)
        assert.ok(
          tags.every((tag) => other.board.tags.includes(tag)),
          other.name,
        );
    }
  });

  test('has panels that do not overlap and leave no gap', () => {
    for (const { name, board } of dashboards) {
      const cells = new Map<string, string>();
      for (const { title, gridPos } of board.panels) {
        assert.ok(gridPos.x + gridPos.w <= 24, `${name}: ${title}`);
        for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
          for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
            assert.equal(cells.get(`${x} ${y}`), undefined, `${name}: ${title} is on top of ${cells.get(`${x} ${y}`)}`);
            cells.set(`${x} ${y}`, title);
          }
        }
      }
      const height = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
      assert.equal(cells.size, 24 * height, `${name}: rows of panels that do not fill the width`);
    }
  });

  test('has panels with ids and titles of their own, and refIds that are unique in a panel', () => {
    for (const dashboard of dashboards) {
      const ids = dashboard.board.panels.map(({ id }) => id);
      assert.equal(new Set(ids).size, ids.length);
      for (const { title, targets } of panelsOf(dashboard)) {
        assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length, title);
      }
    }
  });
});

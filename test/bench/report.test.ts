import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { writeReport } from '../../bench/report.ts';

describe('a report', () => {
  const folder = mkdtempSync(join(tmpdir(), 'crystal-kv-report-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  const conditions = { seed: 3, lines: 24 };

  test('holds figures, rows and the conditions of the machine', () => {
    const path = writeReport(
      'speed',
      { conditions, figures: { tokens_per_second_16: 12.5 }, rows: [{ run: 1 }] },
      folder,
    );
    const report = JSON.parse(readFileSync(path, 'utf8'));
    assert.equal(path, join(folder, 'speed.json'));
    assert.deepEqual(Object.keys(report), ['bench', 'commit', 'date', 'conditions', 'figures', 'rows']);
    assert.equal(report.bench, 'speed');
    assert.match(report.commit, /^([0-9a-f]{7,}(-dirty)?|unversioned)$/);
    assert.ok(!Number.isNaN(Date.parse(report.date)));
    assert.equal(report.conditions.seed, 3);
    assert.equal(report.conditions.node, process.version);
    assert.ok(report.conditions.cores >= 1 && report.conditions.cpu !== '');
    assert.match(report.conditions.model, /^crystal-mini [0-9a-f]{12}$/);
    assert.deepEqual(report.figures, { tokens_per_second_16: 12.5 });
    assert.deepEqual(report.rows, [{ run: 1 }]);
  });

  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    test(`is refused, and not written, when a figure is ${value}`, () => {
      assert.throws(
        () => writeReport('bad', { conditions, figures: { speed: value }, rows: [] }, folder),
        new RegExp(`figure speed must be finite, got ${value}`),
      );
      assert.equal(existsSync(join(folder, 'bad.json')), false);
    });
  }

  test('is refused without figures, or with a name that is no file name', () => {
    assert.throws(() => writeReport('none', { conditions, figures: {}, rows: [] }, folder), /has no figures/);
    assert.throws(() => writeReport('../up', { conditions, figures: { a: 1 }, rows: [] }, folder), /"\.\.\/up"/);
  });
});

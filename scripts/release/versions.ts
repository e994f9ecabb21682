import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { ROOT } from '../processes.ts';

/** Where the one version number of the project stands. */
export function versions(): Record<string, string> {
  const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
  const lock = JSON.parse(read('package-lock.json')) as { version: string };
  const chart = parse(read('deploy/helm/crystal-kv/Chart.yaml')) as { version: string; appVersion: string };
  const images = [...read('docker-compose.yml').matchAll(/image: crystal-kv\/([a-z-]+):(\S+)/g)];
  return {
    'package.json': (JSON.parse(read('package.json')) as { version: string }).version,
    'package-lock.json': lock.version,
    'vllm-plugin/pyproject.toml': /^version = "(.*)"$/m.exec(read('vllm-plugin/pyproject.toml'))?.[1] ?? 'none',
    'Chart.yaml, version': chart.version,
    'Chart.yaml, appVersion': chart.appVersion,
    ...Object.fromEntries(images.map(([, name, version]) => [`docker-compose.yml, ${name}`, version ?? 'none'])),
  };
}

/** The version, or an error that names every place and what stands there. */
export function theVersion(): string {
  const all = versions();
  const [version] = Object.values(all);
  if (version !== undefined && Object.values(all).every((it) => it === version)) return version;
  const places = Object.entries(all).map(([place, it]) => `  ${it.padEnd(12)} ${place}`);
  throw new Error(`versions are not in step\n${places.join('\n')}`);
}

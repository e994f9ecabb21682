import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { ROOT } from '../../../scripts/processes.ts';
import { lastLines, runCommand } from '../../../scripts/testing/command.ts';
import { contextFiles } from './context.ts';
import type { Instruction, Stage } from './dockerfile.ts';

/** What a Dockerfile's steps made, in a folder that stands for the root of a container. */
export interface Image {
  /** The folder that is `/`. */
  root: string;
  workdir: string;
  env: Record<string, string>;
  user: string;
  entrypoint: string[];
  cmd: string[];
  healthcheck: string[];
  ports: number[];
}

export interface Builder {
  /** An empty folder for the stages. */
  folder: string;
  stages: readonly Stage[];
  /** Puts into a root what our steps use of an image that is not built here. */
  base(from: string, root: string): void | Promise<void>;
  built: Map<string, Image>;
}

const INSTALL_MS = 240_000;

/** Builds a stage and what it is made from, each once. Rejects with the step that failed and what it printed. */
export async function build(builder: Builder, name: string): Promise<Image> {
  const done = builder.built.get(name);
  if (done !== undefined) return done;
  const stage = builder.stages.find((it) => it.name === name);
  if (stage === undefined) throw new Error(`no stage ${name}`);
  const root = join(builder.folder, name);
  mkdirSync(root, { recursive: true });
  chmodSync(root, 0o755);
  const image: Image = {
    root,
    workdir: '/',
    env: {},
    user: 'root',
    entrypoint: [],
    cmd: [],
    healthcheck: [],
    ports: [],
  };
  if (builder.stages.some((it) => it.name === stage.from)) {
    const below = await build(builder, stage.from);
    await copyFolder(below.root, root);
    Object.assign(image, structuredClone({ ...below, root }));
  } else await builder.base(stage.from, root);
  for (const step of stage.steps) await apply(builder, image, step);
  builder.built.set(name, image);
  return image;
}

async function apply(builder: Builder, image: Image, step: Instruction): Promise<void> {
  switch (step.type) {
    case 'workdir':
      image.workdir = step.text;
      mkdirSync(inside(image, '.'), { recursive: true });
      break;
    case 'user':
      image.user = step.text;
      break;
    case 'env':
      Object.assign(image.env, step.values);
      break;
    case 'expose':
      image.ports.push(...step.ports);
      break;
    case 'cmd':
    case 'entrypoint':
    case 'healthcheck':
      image[step.type] = step.command;
      break;
    case 'stopsignal':
      if (step.text !== 'SIGTERM') throw new Error(`programs end on SIGTERM, not on ${step.text}`);
      break;
    case 'copy':
      await copy(builder, image, step);
      break;
    case 'run': {
      const options = { cwd: inside(image, '.'), env: pathOf(image), timeoutMs: INSTALL_MS };
      const result = await runCommand('sh', ['-ec', step.text], options);
      if (result.code !== 0) throw new Error(`RUN ${step.text}\n${lastLines(result.output)}`);
      break;
    }
  }
}

async function copy(builder: Builder, image: Image, step: Extract<Instruction, { type: 'copy' }>): Promise<void> {
  const target = inside(image, step.target);
  const from = step.from === undefined ? undefined : await build(builder, step.from);
  for (const source of step.sources) {
    const into = (relative: string) => (relative === '' ? target : join(target, relative));
    if (from !== undefined) await copyFolder(inside(from, source), target);
    else {
      const files = contextFiles(ROOT).filter((file) => file === source || file.startsWith(`${source}/`));
      if (files.length === 0) throw new Error(`COPY ${source}: .dockerignore lets nothing of it through`);
      const intoFolder = step.sources.length > 1 || step.target.endsWith('/') || existsSync(target);
      for (const file of files) {
        const relative = file === source ? (intoFolder ? basename(file) : '') : file.slice(source.length + 1);
        mkdirSync(dirname(into(relative)), { recursive: true });
        cpSync(join(ROOT, file), into(relative));
      }
    }
  }
  if (step.owner !== undefined && process.getuid?.() === 0) {
    const [uid, gid] = step.owner.split(':').map(Number);
    chownSync(target, uid as number, gid as number);
  }
}

/** By hard links: thousands of files, and no step of ours changes one that is there. */
async function copyFolder(from: string, to: string): Promise<void> {
  mkdirSync(to, { recursive: true });
  const copied = await runCommand('cp', ['-al', `${from}/.`, to]);
  if (copied.code !== 0) throw new Error(copied.output);
}

/** Where a path of the image is on this machine. */
export function inside(image: Image, path: string): string {
  return join(image.root, isAbsolute(path) ? path : join(image.workdir, path));
}

/** The image's own programs come first, then this machine's. */
export function pathOf(image: Image): Record<string, string> {
  return { ...image.env, PATH: `${join(image.root, 'usr/local/bin')}:${process.env['PATH']}` };
}

/** Everything below a folder with size and time of change: two that are equal mean that nothing was written. */
export function snapshot(folder: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    if (stat !== undefined) files.set(name, `${stat.isDirectory() ? 'folder' : stat.size} ${stat.mtimeMs}`);
  }
  return files;
}

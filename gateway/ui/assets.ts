import { createHash } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RequestHandler } from 'express';
import { PAGE_HEADERS } from './page-headers.ts';

const FOLDER = fileURLToPath(new URL('./page/', import.meta.url));

/** Whatever else lies in the folder is not served. */
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.LICENSE': 'text/plain; charset=utf-8',
};

interface Asset {
  body: Buffer;
  type: string;
  etag: string;
}

/** Paths that are not files of the page. */
const NOT_SERVED = new Set(['tsconfig.json']);

/** The page's files by their path below `/ui`, read once: a request can reach nothing else. `/ui` is the page. */
export function loadAssets(): ReadonlyMap<string, Asset> {
  const assets = new Map<string, Asset>();
  for (const name of globSync('**/*', { cwd: FOLDER })) {
    const type = TYPES[extname(name)];
    if (type === undefined || NOT_SERVED.has(name)) continue;
    const body = readFileSync(`${FOLDER}${name}`);
    const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
    assets.set(name === 'index.html' ? '/ui' : `/ui/${name}`, { body, type, etag });
  }
  return assets;
}

/** Answers GET and HEAD of one of the page's files; a browser asks each time whether it has changed. */
export function serveAsset({ body, type, etag }: Asset): RequestHandler {
  return function sendAsset(request, response) {
    const headers = { ...PAGE_HEADERS, 'content-type': type, etag, 'cache-control': 'no-cache' };
    if (request.headers['if-none-match'] === etag) response.writeHead(304, headers).end();
    else response.writeHead(200, { ...headers, 'content-length': body.length }).end(body);
  };
}

import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { Server as TlsServer } from 'node:https';
import { createSecureContext } from 'node:tls';
import { z } from 'zod';
import type { Logger } from '../common/logger.ts';

/** The part `gateway.tls` of the configuration. */
export const tlsSchema = z
  .strictObject({
    cert: z.string().min(1).optional().describe('PEM file of the certificate chain; with key, it turns TLS on'),
    key: z.string().min(1).optional().describe('PEM file of its private key'),
  })
  .refine(({ cert, key }) => (cert === undefined) === (key === undefined), 'set both cert and key, or neither')
  .prefault({});
export type TlsConfig = z.output<typeof tlsSchema>;

export interface TlsFiles {
  cert: Buffer;
  key: Buffer;
}

/** Both files, which fit together; undefined without TLS. Throws an error that names option and file. */
export function readTls({ cert, key }: TlsConfig): TlsFiles | undefined {
  if (cert === undefined || key === undefined) return undefined;
  const files = { cert: read('cert', cert), key: read('key', key) };
  try {
    createSecureContext(files);
  } catch (error) {
    throw new Error(`gateway.tls: cannot use ${cert} with ${key}: ${(error as Error).message}`);
  }
  return files;
}

function read(option: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Error(`gateway.tls.${option}: cannot read ${path}: ${(error as Error).message}`);
  }
}

/** The files may have been replaced under the same names: new connections get the new certificate. Never throws. */
export function reloadTls(server: Server, started: TlsFiles | undefined, next: TlsConfig, logger: Logger): void {
  try {
    const files = readTls(next);
    if ((files === undefined) !== (started === undefined)) {
      logger.warn({ options: ['tls'] }, 'turning TLS on or off needs a restart');
    } else if (files !== undefined && server instanceof TlsServer) server.setSecureContext(files);
  } catch (error) {
    logger.error({ reason: (error as Error).message }, 'cannot reload the certificate; the old one stays in use');
  }
}

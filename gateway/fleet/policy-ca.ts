import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** The certificate authority of the policy services. Throws an error that names option and file. */
export function readPolicyCa(file: string): Buffer {
  try {
    const bytes = readFileSync(file);
    new X509Certificate(bytes);
    return bytes;
  } catch (error) {
    throw new Error(`gateway.policy_ca: cannot use ${file}: ${(error as Error).message}`);
  }
}

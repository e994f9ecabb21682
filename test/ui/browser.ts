import { existsSync } from 'node:fs';
import { type Browser, chromium, type Page } from 'playwright-core';

/** Where Debian's package puts it, and what it is called elsewhere. */
const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const executablePath = PLACES.find((path) => existsSync(path));

/** The reason to skip, or false. */
export const NO_BROWSER: string | false = executablePath === undefined ? 'there is no chromium (apt: chromium)' : false;

export function launchBrowser(): Promise<Browser> {
  if (executablePath === undefined) throw new Error('there is no chromium');
  return chromium.launch({ executablePath, args: ARGUMENTS });
}

/** What a page must not do. Each list is empty on a page that is well. */
export interface Misdeeds {
  /** Errors and warnings on the console, exceptions, violations of the content security policy. */
  console: string[];
  /** Addresses of another host that it asked for. */
  foreign: string[];
}

/** Watches a page from before its first request on; requests to other hosts are refused. */
export async function watchPage(page: Page, origin: string): Promise<Misdeeds> {
  const misdeeds: Misdeeds = { console: [], foreign: [] };
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) misdeeds.console.push(message.text());
  });
  page.on('pageerror', (error) => misdeeds.console.push(String(error)));
  await page.exposeFunction('reportViolation', (text: string) => void misdeeds.console.push(text));
  await page.addInitScript(`document.addEventListener('securitypolicyviolation', (event) =>
    reportViolation('violates ' + event.violatedDirective + ': ' + event.blockedURI));`);
  await page.route('**/*', (route) => {
    const url = route.request().url();
    if (new URL(url).origin === origin) return route.continue();
    misdeeds.foreign.push(url);
    return route.abort();
  });
  return misdeeds;
}

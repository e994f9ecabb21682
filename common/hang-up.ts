/**
 * SIGHUP tells a program to read its configuration again. By default it ends a process: a program holds it back before
 * anything else of it is loaded, and takes it once it runs. Several that came before are one.
 */
let take: (() => void) | undefined;
let waits = false;

/** From here on SIGHUP does not end this process. */
export function holdHangUps(): void {
  process.on('SIGHUP', () => {
    if (take === undefined) waits = true;
    else take();
  });
}

/** Calls `handler` at every SIGHUP, and now if one was held back. */
export function takeHangUps(handler: () => void): void {
  take = handler;
  if (waits) handler();
  waits = false;
}

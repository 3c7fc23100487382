import { setTimeout as delay } from 'node:timers/promises';

/** Ten times the start of an opencode on a busy two-core machine, and below vitest's own limit, which would hide the reason. */
export const DEFAULT_WAIT_MS = 45_000;

/** Default poll interval of `until`. A look is at most one loopback request. */
const POLL_MS = 25;

export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(reason: Error): void;
}

/** `Promise.withResolvers`, which Node 20 lacks. */
export function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (reason: Error) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** Rejects with `timed out after … waiting for <what>` unless `promise` settles first. As a function, `what` can describe the latest state. */
export async function within<T>(
  promise: Promise<T>,
  what: string | (() => string),
  timeoutMs = DEFAULT_WAIT_MS,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(lateError(what, timeoutMs));
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Polls until `look` returns something other than `undefined` or `false`, and returns that. For state without an event to wait for.
 * An error of `look` ends the wait.
 */
export async function until<T>(
  what: string | (() => string),
  look: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = DEFAULT_WAIT_MS,
  pollMs = POLL_MS,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) throw lateError(what, timeoutMs);
    await delay(pollMs);
  }
}

function lateError(what: string | (() => string), timeoutMs: number): Error {
  return new Error(`timed out after ${timeoutMs} ms waiting for ${typeof what === 'string' ? what : what()}`);
}

import { setTimeout as delay } from 'node:timers/promises';

/** Ten times the start time of opencode on a busy two-core machine, and less than vitest's timeout, whose error would hide the reason. */
export const DEFAULT_WAIT_MS = 45_000;

/** Default poll interval of `until`. A check is at most one loopback request. */
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
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
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
      reject(timeoutError(what, timeoutMs));
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Polls until `check` returns something other than `undefined` or `false`, and returns that. Use it for state that emits no event.
 * Rejects if `check` throws.
 */
export async function until<T>(
  what: string | (() => string),
  check: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = DEFAULT_WAIT_MS,
  pollMs = POLL_MS,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const result = await check();
    if (result !== undefined && result !== false) return result;
    if (performance.now() > deadline) throw timeoutError(what, timeoutMs);
    await delay(pollMs);
  }
}

function timeoutError(what: string | (() => string), timeoutMs: number): Error {
  return new Error(`timed out after ${timeoutMs} ms waiting for ${typeof what === 'string' ? what : what()}`);
}

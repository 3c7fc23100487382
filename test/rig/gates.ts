import { deferred, within, type Deferred } from './wait.ts';

/** Named gates at which code waits until a test opens them. An open gate stays open, so a test may open it before the code arrives. */
export class Gates {
  readonly #open = new Map<string, Deferred<void>>();
  readonly #arrivals = new Map<string, Deferred<void>>();
  readonly #waiting = new Map<string, number>();

  /** Resolves once `name` is open, or immediately when `signal` aborts. */
  async pass(name: string, signal: AbortSignal): Promise<void> {
    this.#waiting.set(name, this.waiting(name) + 1);
    getOrCreate(this.#arrivals, name).resolve();
    const aborted = deferred<void>();
    const onAbort = (): void => aborted.resolve();
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) aborted.resolve();
    await Promise.race([getOrCreate(this.#open, name).promise, aborted.promise]);
    signal.removeEventListener('abort', onAbort);
    this.#waiting.set(name, this.waiting(name) - 1);
  }

  open(name: string): void {
    getOrCreate(this.#open, name).resolve();
  }

  /** The number of waiters at the gate. */
  waiting(name: string): number {
    return this.#waiting.get(name) ?? 0;
  }

  /** Resolves once some code has arrived at the gate, even if it has left since. */
  async reached(name: string, timeoutMs?: number): Promise<void> {
    await within(
      getOrCreate(this.#arrivals, name).promise,
      `an arrival at the gate ${JSON.stringify(name)}`,
      timeoutMs,
    );
  }
}

function getOrCreate(map: Map<string, Deferred<void>>, name: string): Deferred<void> {
  let found = map.get(name);
  if (!found) {
    found = deferred<void>();
    map.set(name, found);
  }
  return found;
}

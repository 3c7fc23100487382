import { deferred, within, type Deferred } from './wait.ts';

/** Named gates at which code waits until a test opens them. An open gate stays open, so it does not matter which comes first. */
export class Gates {
  readonly #open = new Map<string, Deferred<void>>();
  readonly #arrivals = new Map<string, Deferred<void>>();
  readonly #waiting = new Map<string, number>();

  /** Resolves once `name` is open, or at once when `signal` aborts. */
  async pass(name: string, signal: AbortSignal): Promise<void> {
    this.#waiting.set(name, this.waiting(name) + 1);
    entry(this.#arrivals, name).resolve();
    const leave = deferred<void>();
    const onAbort = (): void => leave.resolve();
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) leave.resolve();
    await Promise.race([entry(this.#open, name).promise, leave.promise]);
    signal.removeEventListener('abort', onAbort);
    this.#waiting.set(name, this.waiting(name) - 1);
  }

  open(name: string): void {
    entry(this.#open, name).resolve();
  }

  /** The number of waiters at the gate. */
  waiting(name: string): number {
    return this.#waiting.get(name) ?? 0;
  }

  /** Resolves once something has arrived at the gate, even if it is gone again. */
  async reached(name: string, timeoutMs?: number): Promise<void> {
    await within(entry(this.#arrivals, name).promise, `an arrival at the gate ${JSON.stringify(name)}`, timeoutMs);
  }
}

function entry(map: Map<string, Deferred<void>>, name: string): Deferred<void> {
  let found = map.get(name);
  if (!found) {
    found = deferred<void>();
    map.set(name, found);
  }
  return found;
}

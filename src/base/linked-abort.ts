import { setMaxListeners } from 'node:events';

/**
 * An AbortController that follows other signals until `end`. AbortSignal.any leaks memory at a long-lived signal (measured with
 * Node 20.20.2; fixed in 26.10).
 */
export class LinkedAbort {
  readonly #controller = new AbortController();
  readonly #links: readonly (readonly [AbortSignal, () => void])[];

  constructor(...signals: readonly (AbortSignal | undefined)[]) {
    this.#links = signals
      .filter((signal) => signal !== undefined)
      .map((signal) => [signal, () => this.#controller.abort(signal.reason)] as const);
    for (const [signal, follow] of this.#links) {
      // A call for many instances is followed many times; Node would warn of a leak.
      setMaxListeners(0, signal);
      signal.addEventListener('abort', follow, { once: true });
      if (signal.aborted) follow();
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason?: unknown): void {
    this.#controller.abort(reason);
  }

  /** Aborts, and stops listening to the other signals. */
  end(): void {
    for (const [signal, follow] of this.#links) signal.removeEventListener('abort', follow);
    this.abort();
  }
}

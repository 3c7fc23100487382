import { requestDated, RequestError, type RequestLimits, requestJson } from '../http/exchange.ts';
import type { ProbeDeps, ProbeTask } from './probe-task.ts';

/** Answers about the identity of a server are below 1 KiB. */
const MAX_IDENTITY_BYTES = 256 * 1024;
/** Longer than what is shown of any title, command or diff. */
const MAX_STRING_BYTES = 4096;

/** The requests of one look. They reject with `RequestError`. */
export class ProbeRequests {
  /** A request ran out of time. */
  timedOut = false;
  /** Counted by `attempt`. */
  answered = 0;
  readonly failures: unknown[] = [];
  readonly #task: ProbeTask;
  readonly #deps: ProbeDeps;

  constructor(task: ProbeTask, deps: ProbeDeps) {
    this.#task = task;
    this.#deps = deps;
  }

  identity(path: string): Promise<unknown> {
    this.#deps.onRequest();
    return requestJson(this.#task.connection, path, this.#limits(MAX_IDENTITY_BYTES));
  }

  /** Long strings in the answer are cut. */
  work(path: string, maxBytes: number): Promise<unknown> {
    this.#deps.onRequest();
    return requestJson(this.#task.connection, path, this.#limits(maxBytes, MAX_STRING_BYTES));
  }

  /** As `work`, with the time by the server's clock, or by ours if it does not send a date. */
  async datedWork(path: string, maxBytes: number): Promise<{ readonly body: unknown; readonly nowMs: number }> {
    this.#deps.onRequest();
    const limits = this.#limits(maxBytes, MAX_STRING_BYTES);
    const { body, dateMs = this.now() } = await requestDated(this.#task.connection, path, limits);
    return { body, nowMs: dateMs };
  }

  now(): number {
    return this.#deps.clock.now();
  }

  /** Resolves to undefined if there is no answer, or none that can be used. */
  async attempt<T>(answer: Promise<T>): Promise<T | undefined> {
    try {
      const found = await answer;
      this.answered += 1;
      return found;
    } catch (error) {
      this.failures.push(error);
      this.timedOut ||= this.isTimeout(error);
      return undefined;
    }
  }

  isTimeout(error: unknown): boolean {
    return this.#task.signal.aborted || (error instanceof RequestError && error.kind === 'timeout');
  }

  #limits(maxBytes: number, maxStringBytes?: number): RequestLimits {
    const { limitMs, signal } = this.#task;
    return { timeoutMs: limitMs, maxBytes, maxStringBytes, signal };
  }
}

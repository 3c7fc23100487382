import { setMaxListeners } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { messageIn, type ReaderWords } from '../model/advice.ts';
import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type Fleet, type Reached, UnreachableError } from '../fleet/fleet.ts';
import type { Refusal } from '../node/access/request-guard.ts';
import type { ProxyTarget } from '../node/proxy/exchange-proxy.ts';

export interface CurrentEndpointDeps {
  readonly fleet: Pick<Fleet, 'reachAnother'>;
  readonly clock: Clock;
  readonly words: ReaderWords;
  /** Ends the search for another endpoint. */
  readonly signal: AbortSignal;
}

/** OpenCode 1 sends something on each event stream every 10 s, OpenCode 2 every 15 s: after this, the connection is dead. */
export const SILENCE_MS = 40_000;

/**
 * The endpoint in use for one server. After a failure, another endpoint that provably leads to the same process replaces it; until then
 * nothing is sent.
 */
export class CurrentEndpoint {
  readonly #deps: CurrentEndpointDeps;
  #reached: Reached;
  #failed = false;
  /** Aborts when the endpoint is given up, to end its streams: they would otherwise stay open and silent. */
  #left = createLeft();
  #searching: Promise<Refusal | undefined> | undefined;

  constructor(reached: Reached, deps: CurrentEndpointDeps) {
    this.#reached = reached;
    this.#deps = deps;
  }

  /** The endpoint to use now, or why there is none. */
  async now(): Promise<ProxyTarget | Refusal> {
    if (this.#failed) {
      this.#searching ??= this.#search().finally(() => (this.#searching = undefined));
      const problem = await this.#searching;
      if (problem !== undefined) return problem;
    }
    const { connection } = this.#reached;
    const left = this.#left;
    const failed = (): void => {
      // Another request may already have reported it.
      if (left === this.#left) this.#leave();
    };
    return { connection, left: left.signal, failed, watch: (answer, cut) => this.#watch(answer, cut, failed) };
  }

  #leave(): void {
    const left = this.#left;
    this.#failed = true;
    this.#left = createLeft();
    left.abort();
  }

  async #search(): Promise<Refusal | undefined> {
    const { fleet, signal, words } = this.#deps;
    try {
      this.#reached = await fleet.reachAnother(this.#reached, [], signal);
      this.#failed = false;
      return undefined;
    } catch (error) {
      if (error instanceof UnreachableError) return { status: 503, text: messageIn(words, error) };
      throw error;
    }
  }

  /** Gives the endpoint up when an event stream on it ends or falls silent: a healthy one does neither. */
  #watch(answer: IncomingMessage, cut: AbortSignal, failed: () => void): void {
    if (answer.headers['content-type']?.startsWith('text/event-stream') !== true) return;
    const over = new LinkedAbort(cut);
    let lastMs = this.#deps.clock.monotonic();
    const end = (): void => {
      if (!cut.aborted) failed();
      over.end();
    };
    answer.on('data', () => (lastMs = this.#deps.clock.monotonic()));
    answer.once('end', end).once('error', end);
    void this.#whenSilent(() => lastMs, over.signal).then(end);
  }

  async #whenSilent(lastMs: () => number, over: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    for (;;) {
      const silentMs = clock.monotonic() - lastMs();
      if (over.aborted || silentMs >= SILENCE_MS) return;
      await clock.sleep(SILENCE_MS - silentMs, over);
    }
  }
}

function createLeft(): AbortController {
  const left = new AbortController();
  // Each exchange adds a listener.
  setMaxListeners(0, left.signal);
  return left;
}

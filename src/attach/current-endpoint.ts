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
  /** Ends the looking for other ways. */
  readonly signal: AbortSignal;
}

/** opencode says something on each event stream every 10 s, version 2 every 15: one that is silent for so long leads nowhere. */
export const SILENCE_MS = 40_000;

/**
 * The way by which one server is reached. Once it has failed, nothing goes by any way before it has proven again to lead to
 * the very process that was reached first.
 */
export class CurrentEndpoint {
  readonly #deps: CurrentEndpointDeps;
  #reached: Reached;
  #failed = false;
  /** Aborts when the way is given up: what streams by it would only fall silent. */
  #left = leaving();
  #looking: Promise<Refusal | undefined> | undefined;

  constructor(reached: Reached, deps: CurrentEndpointDeps) {
    this.#reached = reached;
    this.#deps = deps;
  }

  /** Where to send now, or why there is no way. */
  async now(): Promise<ProxyTarget | Refusal> {
    if (this.#failed) {
      this.#looking ??= this.#look().finally(() => (this.#looking = undefined));
      const problem = await this.#looking;
      if (problem !== undefined) return problem;
    }
    const { connection } = this.#reached;
    const left = this.#left;
    const failed = (): void => {
      // Another request may have found that out before.
      if (left === this.#left) this.#leave();
    };
    return { connection, left: left.signal, failed, watch: (answer, cut) => this.#watch(answer, cut, failed) };
  }

  #leave(): void {
    const left = this.#left;
    this.#failed = true;
    this.#left = leaving();
    left.abort();
  }

  async #look(): Promise<Refusal | undefined> {
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

  /** An event stream ends only with its server, or its way. */
  #watch(answer: IncomingMessage, cut: AbortSignal, failed: () => void): void {
    if (answer.headers['content-type']?.startsWith('text/event-stream') !== true) return;
    const over = new LinkedAbort(cut);
    let heardMs = this.#deps.clock.monotonic();
    const end = (): void => {
      if (!cut.aborted) failed();
      over.end();
    };
    answer.on('data', () => (heardMs = this.#deps.clock.monotonic()));
    answer.once('end', end).once('error', end);
    void this.#whenSilent(() => heardMs, over.signal).then(end);
  }

  async #whenSilent(heardMs: () => number, over: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    for (;;) {
      const silentMs = clock.monotonic() - heardMs();
      if (over.aborted || silentMs >= SILENCE_MS) return;
      await clock.sleep(SILENCE_MS - silentMs, over);
    }
  }
}

function leaving(): AbortController {
  const left = new AbortController();
  // One for each exchange.
  setMaxListeners(0, left.signal);
  return left;
}

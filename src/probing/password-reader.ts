import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';

import type { Clock } from '../base/clock.ts';
import type { Candidate, Endpoint } from '../model/candidate.ts';
import type { Credential } from '../http/exchange.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { within } from '../base/within.ts';
import { reasonOf } from '../base/errors.ts';

export interface PasswordDeps {
  readonly clock: Clock;
  /** The longest that one probe waits for its password. */
  readonly limitMs: number;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  /** Rejects if a header cannot be read. */
  readonly withHeaders?: ((endpoint: Endpoint, signal: AbortSignal) => Promise<Endpoint>) | undefined;
}

export interface PasswordAnswer {
  readonly credential?: Credential;
  /** Why the configured password could not be read. */
  readonly problem?: string;
  /** The endpoint with its headers, if some had to be read. */
  readonly endpoint?: Endpoint;
  /** Why the endpoint must not be probed: a header could not be read, and without it another instance might answer. */
  readonly lock?: string;
}

/** Password files read at once, well below any limit of open files. */
const AT_ONCE = 64;

/** Longer than any file takes. After this a slow password command leaves its place to the next read. */
const PLACE_MS = 100;

/** Reason for `abort`. Without one, each abort creates an exception with a stack, which is slow for 10,000 probes. */
const LATE = 'late';

/** Reads passwords before the probe takes its slot, so that a slow vault delays no other probe. */
export class PasswordReader {
  readonly #deps: PasswordDeps;
  readonly #places = pLimit(AT_ONCE);
  readonly #closing = new AbortController();
  readonly #open = new Map<Candidate, Promise<PasswordAnswer>>();

  constructor(deps: PasswordDeps) {
    this.#deps = deps;
    // Every read adds a listener.
    setMaxListeners(0, this.#closing.signal);
  }

  /** Never rejects. `urgent` skips the queue. */
  async find(candidate: Candidate, urgent: boolean): Promise<PasswordAnswer> {
    if (urgent) return this.#read(candidate);
    return await new Promise((resolve) => {
      void this.#places(async () => {
        const answer = this.#read(candidate);
        void answer.then(resolve);
        const place = new LinkedAbort(this.#closing.signal);
        await Promise.race([answer, this.#deps.clock.sleep(PLACE_MS, place.signal)]);
        place.end();
        // Thousands of candidates without a password must not fill one turn of the event loop: the first probes need their sockets.
        await new Promise((next) => setImmediate(next));
      });
    });
  }

  close(): void {
    this.#closing.abort(LATE);
  }

  async #read(candidate: Candidate): Promise<PasswordAnswer> {
    const { clock, limitMs: ms } = this.#deps;
    const hasHeaders = hasUnreadHeaders(candidate);
    const late = (): Error => new Error(`timed out after ${ms} ms reading its ${hasHeaders ? 'headers' : 'password'}`);
    try {
      const limit = { clock, ms, late, signal: this.#closing.signal };
      return await within(limit, (signal) => this.#inFlight(candidate, signal));
    } catch (error) {
      return { [hasHeaders ? 'lock' : 'problem']: reasonOf(error) };
    }
  }

  /** Shares a read that is under way: on a hung file system each read would hold a thread. */
  #inFlight(candidate: Candidate, signal: AbortSignal): Promise<PasswordAnswer> {
    const known = this.#open.get(candidate);
    if (known !== undefined) return known;
    const resolving = this.#resolve(candidate, signal).finally(() => this.#open.delete(candidate));
    this.#open.set(candidate, resolving);
    return resolving;
  }

  /** Rejects if the signal aborts, and, if there are no headers to read, if the password cannot be read. */
  async #resolve(candidate: Candidate, signal: AbortSignal): Promise<PasswordAnswer> {
    const { resolveCredential, withHeaders } = this.#deps;
    if (!hasUnreadHeaders(candidate) || withHeaders === undefined) {
      const credential = await resolveCredential(candidate, signal);
      return credential === undefined ? {} : { credential };
    }
    let endpoint: Endpoint;
    try {
      endpoint = await withHeaders(candidate.endpoint, signal);
    } catch (error) {
      signal.throwIfAborted();
      return { lock: reasonOf(error) };
    }
    const credential = await resolveCredential(candidate, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      return reasonOf(error);
    });
    return { endpoint, ...(typeof credential === 'string' ? { problem: credential } : credential && { credential }) };
  }
}

function hasUnreadHeaders({ endpoint: { headers = {} } }: Candidate): boolean {
  return Object.values(headers).some((value) => typeof value !== 'string');
}

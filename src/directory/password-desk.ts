import pLimit from 'p-limit';

import type { Clock } from '../clock.ts';
import type { Candidate } from '../discovery/source.ts';
import type { Credential } from '../opencode/transport.ts';
import { singleLine } from '../plain-text.ts';

export interface PasswordDeps {
  readonly clock: Clock;
  /** The longest that one probe waits for its password. */
  readonly limitMs: number;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
}

/** A credential where there is one, or why the one that is configured is not to be had. */
export interface PasswordAnswer {
  readonly credential?: Credential;
  readonly problem?: string;
}

/** Password files read at once, well below any limit of open files. */
const AT_ONCE = 64;

/** A password command that takes longer than any file leaves its place to the next. */
const PLACE_MS = 100;

/** Most candidates have no password and are done with at once: thousands in one turn would keep the first probes from their sockets. */
const PER_TURN = 256;

const MAX_PROBLEM_CHARS = 300;

/** Abort reasons of our own: without one, each abort makes an exception with a stack, which 10,000 probes feel. */
const DONE = 'done';
const LATE = 'late';

/** Finds the passwords of candidates before a probe takes its slot, so that a slow vault holds up nobody else. */
export class PasswordDesk {
  readonly #deps: PasswordDeps;
  readonly #places = pLimit(AT_ONCE);
  readonly #asking = new Set<AbortController>();
  #thisTurn = 0;
  #turn: Promise<void> | undefined;

  constructor(deps: PasswordDeps) {
    this.#deps = deps;
  }

  /** Never rejects. An urgent one does not stand in line. */
  async find(candidate: Candidate, urgent: boolean): Promise<PasswordAnswer> {
    if (urgent) return this.#ask(candidate, new AbortController());
    let answer: Promise<PasswordAnswer> | undefined;
    await this.#places(async () => {
      const asking = new AbortController();
      answer = this.#ask(candidate, asking);
      await Promise.race([answer, this.#deps.clock.sleep(PLACE_MS, asking.signal)]);
      this.#thisTurn += 1;
      if (this.#thisTurn > PER_TURN) await this.#nextTurn();
    });
    return (await answer) ?? {};
  }

  close(): void {
    for (const asking of this.#asking) asking.abort(LATE);
  }

  /** One for all who wait: each would start the count anew within the same turn. */
  #nextTurn(): Promise<void> {
    this.#turn ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#thisTurn = 0;
        this.#turn = undefined;
        resolve();
      });
    });
    return this.#turn;
  }

  async #ask(candidate: Candidate, asking: AbortController): Promise<PasswordAnswer> {
    const { clock, limitMs, resolveCredential } = this.#deps;
    const { signal } = asking;
    this.#asking.add(asking);
    void clock.sleep(limitMs, signal).then(() => {
      if (!signal.aborted) asking.abort(LATE);
    });
    try {
      const credential = await resolveCredential(candidate, signal);
      return credential === undefined ? {} : { credential };
    } catch (error) {
      if (signal.aborted) return { problem: `its password was not to be had within ${limitMs} ms` };
      return { problem: singleLine(error instanceof Error ? error.message : String(error), MAX_PROBLEM_CHARS) };
    } finally {
      this.#asking.delete(asking);
      asking.abort(DONE);
    }
  }
}

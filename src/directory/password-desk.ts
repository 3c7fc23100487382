import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';

import type { Clock } from '../clock.ts';
import type { Candidate, Endpoint } from '../discovery/source.ts';
import type { Credential } from '../opencode/transport.ts';
import { singleLine } from '../plain-text.ts';
import { unlessAborted } from '../unless-aborted.ts';

export interface PasswordDeps {
  readonly clock: Clock;
  /** The longest that one probe waits for its password. */
  readonly limitMs: number;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  /** Rejects where a header cannot be read. */
  readonly withHeaders?: ((endpoint: Endpoint, signal: AbortSignal) => Promise<Endpoint>) | undefined;
}

/** A credential where there is one, or why the one that is configured is not to be had. */
export interface PasswordAnswer {
  readonly credential?: Credential;
  readonly problem?: string;
  /** With its headers, where some had to be read. */
  readonly endpoint?: Endpoint;
  /** Why it must not be asked at all: without its headers another instance might answer. */
  readonly lock?: string;
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

/** Look-ups that began in the same turn share their time limits: most are done with at once, and a timer each would cost more than they do. */
interface Cohort {
  readonly controller: AbortController;
  /** Over when their places go to the next ones. */
  readonly placesOver: Promise<void>;
  open: number;
}

/** Finds the passwords of candidates before a probe takes its slot, so that a slow vault holds up nobody else. */
export class PasswordDesk {
  readonly #deps: PasswordDeps;
  readonly #places = pLimit(AT_ONCE);
  readonly #cohorts = new Set<Cohort>();
  readonly #open = new Map<Candidate, Promise<PasswordAnswer>>();
  #cohort: Cohort | undefined;
  #thisTurn = 0;
  #turn: Promise<void> | undefined;

  constructor(deps: PasswordDeps) {
    this.#deps = deps;
  }

  /** Never rejects. An urgent one does not stand in line. */
  async find(candidate: Candidate, urgent: boolean): Promise<PasswordAnswer> {
    if (urgent) return this.#ask(candidate, this.#begin());
    let answer: Promise<PasswordAnswer> | undefined;
    await this.#places(async () => {
      const cohort = this.#join();
      answer = this.#ask(candidate, cohort);
      await Promise.race([answer, cohort.placesOver]);
      this.#thisTurn += 1;
      if (this.#thisTurn > PER_TURN) await this.#nextTurn();
    });
    return (await answer) ?? {};
  }

  close(): void {
    for (const { controller } of this.#cohorts) controller.abort(LATE);
  }

  async #ask(candidate: Candidate, cohort: Cohort): Promise<PasswordAnswer> {
    const { limitMs } = this.#deps;
    const { signal } = cohort.controller;
    try {
      return await unlessAborted(this.#underWay(candidate, signal), signal);
    } catch (error) {
      if (hasUnreadHeaders(candidate)) return { lock: `its headers could not be read within ${limitMs} ms` };
      if (signal.aborted) return { problem: `its password was not to be had within ${limitMs} ms` };
      return { problem: reasonOf(error) };
    } finally {
      cohort.open -= 1;
      if (cohort.open === 0) this.#end(cohort);
    }
  }

  /** A file system that hangs would otherwise collect one stuck look-up per probe, each holding a thread. */
  #underWay(candidate: Candidate, signal: AbortSignal): Promise<PasswordAnswer> {
    const known = this.#open.get(candidate);
    if (known !== undefined) return known;
    const resolving = this.#resolve(candidate, signal).finally(() => this.#open.delete(candidate));
    this.#open.set(candidate, resolving);
    return resolving;
  }

  /** Rejects where the signal aborts, and where there are no headers to read but no password either. */
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

  /** One cohort a turn, until it is over. */
  #join(): Cohort {
    if (this.#cohort === undefined) {
      const cohort = this.#begin();
      this.#cohort = cohort;
      setImmediate(() => {
        if (this.#cohort === cohort) this.#cohort = undefined;
      });
      return cohort;
    }
    this.#cohort.open += 1;
    return this.#cohort;
  }

  #begin(): Cohort {
    const { clock, limitMs } = this.#deps;
    const controller = new AbortController();
    const { signal } = controller;
    // Every look-up of a turn listens to it, which is no leak.
    setMaxListeners(0, signal);
    void clock.sleep(limitMs, signal).then(() => {
      if (!signal.aborted) controller.abort(LATE);
    });
    const cohort = { controller, placesOver: clock.sleep(PLACE_MS, signal), open: 1 };
    this.#cohorts.add(cohort);
    return cohort;
  }

  #end(cohort: Cohort): void {
    if (this.#cohort === cohort) this.#cohort = undefined;
    this.#cohorts.delete(cohort);
    cohort.controller.abort(DONE);
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
}

/** Whether a header's value is to be found somewhere first. */
function hasUnreadHeaders({ endpoint: { headers = {} } }: Candidate): boolean {
  return Object.values(headers).some((value) => typeof value !== 'string');
}

function reasonOf(error: unknown): string {
  return singleLine(error instanceof Error ? error.message : String(error), MAX_PROBLEM_CHARS);
}

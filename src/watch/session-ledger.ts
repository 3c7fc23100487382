import { singleLine } from '../base/plain-text.ts';
import { type Clock, wallTime } from '../base/clock.ts';
import { runs, type WatchedSession } from '../model/watched.ts';
import type { OpencodeApi } from '../opencode/api.ts';
import type { Session } from '../opencode/schema.ts';
import { retryingLine } from '../opencode/waiting.ts';
import type { RunningSession, SeenWork } from './seen-work.ts';
import { beginOfTurn, endOfTurn, type TurnEnd } from './turn-end.ts';

/** How long an ended session is kept. */
export const ENDED_FOR_MS = 3_600_000;
/** Sessions per server: nobody looks through more. */
const MAX_RUNNING = 64;
const MAX_ENDED = 50;
/** Sessions listed per directory when a server is found. */
const MAX_FOUND = 20;
/** opencode reports a session idle before it completes the last message. A message still incomplete after this time stays so. */
const SETTLES_IN_MS = 2000;
const MAX_TITLE_CHARS = 200;
/** PATH_MAX on Linux. */
const MAX_DIRECTORY_CHARS = 4096;
/** Sessions that events named since the last survey. */
const MAX_NOTED = 1000;

/** The result of taking over a survey. */
export interface Taken {
  /** False if a request failed, or a session has stopped whose last message may still be completed. */
  readonly isSettled: boolean;
  /** Sessions that may run in directories that were not asked about. */
  readonly elsewhere: readonly Pick<Session, 'id' | 'directory'>[];
}

/** One server's sessions: those that run, and those that ended in the last hour. */
export class SessionLedger {
  readonly #clock: Clock;
  #sessions = new Map<string, WatchedSession>();
  /** By the monotonic clock: while the machine sleeps, no event can come. */
  readonly #lastEvents = new Map<string, number>();
  /** Sessions whose title may have changed. */
  readonly #renamed = new Set<string>();
  /** Sessions that began according to an event; one may end before a survey sees it run. */
  readonly #begun = new Set<string>();
  readonly #retrying = new Set<string>();
  /** Errors from events that opencode does not store with the message. */
  readonly #errors = new Map<string, string>();
  /** Stopped sessions with an incomplete last message, and since when. */
  readonly #ending = new Map<string, number>();
  #isFirst = true;
  /** Sessions that may still run though the survey did not see them run. */
  #elsewhere: Pick<Session, 'id' | 'directory'>[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(id: string): WatchedSession | undefined {
    return this.#sessions.get(id);
  }

  /** Newest first. */
  list(): readonly WatchedSession[] {
    const since = this.#clock.now() - ENDED_FOR_MS;
    const all = [...this.#sessions.values()].toSorted((one, other) => other.sinceMs - one.sinceMs);
    const ended = all.filter((one) => !runs(one) && one.sinceMs >= since).slice(0, MAX_ENDED);
    const kept = new Set(ended);
    return all.filter((one) => runs(one) || kept.has(one));
  }

  /** Of the sessions that run, see `WatchedServer`. */
  get lastEvents(): ReadonlyMap<string, number> {
    return new Map([...this.#lastEvents].map(([id, atMs]) => [id, wallTime(this.#clock, atMs)]));
  }

  noteEvent(id: string): void {
    if (this.#lastEvents.has(id)) this.#lastEvents.set(id, this.#clock.monotonic());
  }

  noteBegin(id: string): void {
    if (this.#begun.size < MAX_NOTED) this.#begun.add(id);
    this.#errors.delete(id);
  }

  /** Notes a retry, which a survey of OpenCode 2 does not show. */
  noteRetry(id: string): void {
    if (this.#retrying.size < MAX_NOTED) this.#retrying.add(id);
  }

  noteTitle(id: string): void {
    if (this.#sessions.has(id)) this.#renamed.add(id);
  }

  noteError(id: string, reason: string): void {
    if (this.#errors.size < MAX_NOTED) this.#errors.set(id, reason);
  }

  /** Takes over a survey, and requests what it does not have: titles, when turns began and how they ended. */
  async take(work: SeenWork, api: OpencodeApi, signal: AbortSignal): Promise<Taken> {
    this.#elsewhere = [];
    const retries = await this.#retries(work, api);
    const begun = [...this.#begun];
    // Waiting sessions first, so that the bound never hides one that needs a person.
    const running = [...work.running]
      .toSorted(([, one], [, other]) => Number(other.waiting.length > 0) - Number(one.waiting.length > 0))
      .slice(0, MAX_RUNNING);
    const over = [...this.#sessions.values()].filter(
      (one) => runs(one) && !work.running.has(one.id) && !work.unknown.has(one.directory),
    );
    const ended = new Set([...over.map(({ id }) => id), ...(work.isWhole ? begun : [])]);
    for (const [id] of work.running) ended.delete(id);
    const done = await Promise.all([
      ...running.map(([id, seen]) => attempt(() => this.#runs(id, { retry: retries.get(id), ...seen }, api))),
      ...[...ended].map((id) => attempt(() => this.#ends(id, api))),
      ...(this.#isFirst ? work.recent.map((directory) => attempt(() => this.#find(directory, work, api))) : []),
    ]);
    const isSettled = done.every(Boolean);
    if (work.isWhole && isSettled && !signal.aborted) {
      this.#isFirst = false;
      for (const id of begun) this.#begun.delete(id);
    }
    this.#prune();
    return { isSettled, elsewhere: this.#elsewhere.filter(({ directory }) => !work.asked.has(directory)) };
  }

  /** The server's process is gone: everything that ran is interrupted. */
  interruptAll(reason: string): void {
    const sinceMs = this.#clock.now();
    for (const [id, session] of this.#sessions)
      if (runs(session)) this.#sessions.set(id, { ...session, state: 'interrupted', sinceMs, reason, waiting: [] });
      else this.#sessions.delete(id);
  }

  /** Which sessions retry, and why, in directories whose survey does not show retries. */
  async #retries({ running, retryingIn }: SeenWork, api: OpencodeApi): Promise<ReadonlyMap<string, string>> {
    const found = new Map<string, string>();
    const directories = [...this.#retrying].flatMap((id) => running.get(id)?.directory ?? []);
    await Promise.all(
      [...new Set([...retryingIn, ...directories])].map(async (directory) => {
        const statuses = await api.statuses(directory).catch(() => new Map<string, never>());
        for (const [id, status] of statuses) if (status.type === 'retry') found.set(id, retryingLine(status));
      }),
    );
    for (const id of running.keys()) this.#retrying.delete(id);
    // Asked again at the next survey: no event says that a retry has ended.
    for (const id of found.keys()) this.#retrying.add(id);
    return found;
  }

  async #runs(id: string, seen: RunningSession, api: OpencodeApi): Promise<boolean> {
    const { waiting, retry } = seen;
    const before = this.#sessions.get(id);
    const isGoingOn = before !== undefined && runs(before);
    const facts = await this.#factsNow(id, seen, api);
    if (facts === undefined) return false;
    const nowMs = this.#clock.now();
    const beganMs = isGoingOn ? before.turnBeganMs : await this.#beganMs(id, before, api);
    const reason = waiting.length > 0 ? undefined : retry;
    const state = waiting.length > 0 ? 'waiting' : reason === undefined ? 'busy' : 'retrying';
    const isSame =
      isGoingOn &&
      before.state === state &&
      (state !== 'waiting' || before.waiting.some((old) => waiting.some((one) => one.id === old.id)));
    const beginMs = !isGoingOn && state === 'busy' ? beganMs : undefined;
    this.#ending.delete(id);
    if (!isGoingOn) this.#lastEvents.set(id, this.#clock.monotonic());
    this.#sessions.set(id, {
      ...pickFacts(facts),
      state,
      sinceMs: isSame ? before.sinceMs : (beginMs ?? nowMs),
      ...(beganMs !== undefined && { turnBeganMs: beganMs }),
      ...(reason !== undefined && { reason }),
      waiting,
    });
    return !this.#renamed.has(id);
  }

  /** When the turn began, by the server's store. If that does not show it: now, or unknown for the sessions that ran when the server was found. */
  async #beganMs(id: string, before: WatchedSession | undefined, api: OpencodeApi): Promise<number | undefined> {
    const nowMs = this.#clock.now();
    const storedMs = await beginOfTurn(api, id).catch(() => undefined);
    // OpenCode 2 does not store a prompt while it is queued, so an older message belongs to the turn before.
    const isOlder = storedMs !== undefined && before !== undefined && storedMs < before.sinceMs;
    return storedMs === undefined || isOlder ? (this.#isFirst ? undefined : nowMs) : Math.min(storedMs, nowMs);
  }

  async #ends(id: string, api: OpencodeApi): Promise<boolean> {
    const session = await api.session(id);
    if (session === undefined) {
      this.#forget(id);
      return true;
    }
    return await this.#end(session, api, SETTLES_IN_MS);
  }

  /** Sessions of a directory that ended before the server was found. */
  async #find(directory: string, { running }: SeenWork, api: OpencodeApi): Promise<boolean> {
    const since = this.#clock.now() - ENDED_FOR_MS;
    const listed = await api.sessions({ directory, limit: MAX_FOUND });
    const ended = listed.filter(({ id, time }) => !running.has(id) && time.updated >= since && time.archived == null);
    const done = await Promise.all(ended.map((session) => this.#end(session, api, 0)));
    return done.every(Boolean);
  }

  /** False if the last message may still be completed: for `settleMs` after the session stopped. */
  async #end(session: Session, api: OpencodeApi, settleMs: number): Promise<boolean> {
    const { id } = session;
    const before = this.#sessions.get(id);
    const end = this.#explained(id, await endOfTurn(api, session));
    if (end.state === 'interrupted' && end.endedMs === undefined) {
      const nowMs = this.#clock.monotonic();
      const sinceMs = this.#ending.get(id) ?? nowMs;
      this.#ending.set(id, sinceMs);
      if (nowMs - sinceMs < settleMs) {
        this.#elsewhere.push(session);
        return false;
      }
    }
    const nowMs = this.#clock.now();
    const turnBeganMs = end.beganMs ?? before?.turnBeganMs;
    const endedMs = end.endedMs ?? (before === undefined ? session.time.updated : nowMs);
    this.#ending.delete(id);
    this.#lastEvents.delete(id);
    this.#sessions.set(id, {
      ...factsIn(session),
      state: end.state,
      sinceMs: Math.min(endedMs, nowMs),
      ...(turnBeganMs !== undefined && { turnBeganMs }),
      ...(end.reason !== undefined && { reason: end.reason }),
      waiting: [],
    });
    return true;
  }

  #explained(id: string, end: TurnEnd): TurnEnd {
    const error = this.#errors.get(id);
    return end.state === 'interrupted' && end.endedMs === undefined && error !== undefined
      ? { ...end, state: 'failed', reason: error, endedMs: this.#clock.now() }
      : end;
  }

  /** A waiting session is listed even if its title cannot be read; the next survey requests the title again. */
  async #factsNow(id: string, { directory, waiting }: RunningSession, api: OpencodeApi): Promise<Facts | undefined> {
    const before = this.#sessions.get(id);
    if (before !== undefined && !this.#renamed.delete(id)) return before;
    try {
      const session = await api.session(id);
      return session && factsIn(session);
    } catch (error) {
      if (before === undefined && waiting.length === 0) throw error;
      this.#renamed.add(id);
      return before ?? { id, title: '', directory: singleLine(directory, MAX_DIRECTORY_CHARS) };
    }
  }

  #forget(id: string): void {
    this.#sessions.delete(id);
    this.#ending.delete(id);
    this.#lastEvents.delete(id);
    this.#errors.delete(id);
    this.#renamed.delete(id);
  }

  #prune(): void {
    const kept = new Set(this.list().map(({ id }) => id));
    for (const id of this.#sessions.keys()) if (!kept.has(id)) this.#forget(id);
  }
}

type Facts = Pick<WatchedSession, 'id' | 'title' | 'directory' | 'parentId'>;

function factsIn({ id, title, directory, parentID }: Session): Facts {
  return {
    id,
    title: singleLine(title, MAX_TITLE_CHARS),
    directory: singleLine(directory, MAX_DIRECTORY_CHARS),
    ...(parentID !== undefined && { parentId: parentID }),
  };
}

function pickFacts({ id, title, directory, parentId }: Facts): Facts {
  return { id, title, directory, ...(parentId !== undefined && { parentId }) };
}

/** False if a request failed. */
async function attempt(work: () => Promise<boolean>): Promise<boolean> {
  try {
    return await work();
  } catch {
    return false;
  }
}

import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';

import { type Clock, repeat } from '../base/clock.ts';
import { reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Connection } from '../http/exchange.ts';
import type { Dialect, Instance, Overview } from '../model/instance.ts';
import type { WatchedSession } from '../model/watched.ts';
import { createApi } from '../opencode/dialects/dialects.ts';
import type { OpencodeApi } from '../opencode/api.ts';
import type { EventStream, ServerEvent } from '../opencode/events.ts';
import { messageErrorSchema } from '../opencode/schema.ts';
import { TOLD_BY_THE_STORE } from '../turns/follower.ts';
import { saidError } from '../turns/last-turn.ts';
import { hintIn, isEpoch, isRetry, sessionIn } from './hints.ts';
import type { OwnServer, OwnServers } from './own-servers.ts';
import { seenWork } from './seen-work.ts';
import { isServerIdle } from './server-idle.ts';
import { ENDED_FOR_MS, runs, SessionLedger } from './session-ledger.ts';
import { SurveyPace } from './survey-pace.ts';

/** Opens the stream of all that happens at one server. */
export type OpenServerEvents = (dialect: Dialect, connection: Connection, signal: AbortSignal) => Promise<EventStream>;

export interface FollowerOptions {
  readonly server: Pick<OwnServer, 'id' | 'dialect'>;
  readonly own: OwnServers;
  readonly openEvents: OpenServerEvents;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What is known is different. */
  readonly onChange: () => void;
  /** Its stream ended, or cannot be opened: it may be gone. */
  readonly onBreak: () => void;
}

/** What is asked of the very process whose events are followed. */
interface Following {
  readonly connection: Connection;
  readonly api: OpencodeApi;
}

const REOPEN_MS = 100;
const LONGEST_REOPEN_MS = 10_000;
/** OpenCode 1 subscribes some milliseconds after it has answered: what happened between is asked again. */
const SUBSCRIBED_MS = 1000;
/** opencode completes a message some milliseconds after it says that its session is idle. */
const SETTLING_MS = 250;
const MAX_PLACED = 100;

/**
 * Follows one server. Its events are hints, of which none need be right or come at all: whatever they say, the server is asked again,
 * and what it answers is the state.
 */
export class ServerFollower {
  readonly #options: FollowerOptions;
  readonly #root = new AbortController();
  readonly #pace: SurveyPace;
  readonly #ledger: SessionLedger;
  #work: readonly Promise<void>[] = [];
  /** The process whose stream stands. */
  #process: Following | undefined;
  /** All that the last survey found is known. */
  #isSettled = false;
  #isAsking = false;
  /** When the last survey began that was answered whole while the stream stood. */
  #checkedMs: number | undefined;
  #shown = '';
  #instances: readonly Instance[] = [];
  /** Sessions whose directories the fleet was told of, some of the latest. */
  readonly #placed = new Set<string>();

  constructor(options: FollowerOptions) {
    this.#options = options;
    // Each sleep listens.
    setMaxListeners(0, this.#root.signal);
    this.#pace = new SurveyPace(options.clock, shareOf(options.server.id));
    this.#ledger = new SessionLedger(options.clock);
  }

  get dialect(): Dialect {
    return this.#options.server.dialect;
  }

  /** See `WatchedServer`. */
  get checkedMs(): number | undefined {
    return this.#checkedMs;
  }

  /** As they are known now; of a server that is gone, as they were last seen. */
  get instances(): readonly Instance[] {
    const now = this.#options.own.instancesOf(this.#options.server.id);
    return now.length > 0 ? now : this.#instances;
  }

  get sessions(): readonly WatchedSession[] {
    return this.#ledger.list();
  }

  /** See `WatchedServer`. */
  get lastEvents(): ReadonlyMap<string, number> {
    return this.#ledger.lastEvents;
  }

  start(): void {
    this.#work = [this.#follow(), this.#keepAsking()];
  }

  /** What ran in it is known to be over, since its process is. */
  interruptAll(reason: string): readonly WatchedSession[] {
    this.#ledger.interruptAll(reason);
    return this.sessions;
  }

  async close(): Promise<void> {
    this.#root.abort();
    await Promise.all(this.#work);
  }

  async #follow(): Promise<void> {
    const { own, server, clock, logger, openEvents, onBreak } = this.#options;
    const { signal } = this.#root;
    await repeat({ clock, signal, firstMs: REOPEN_MS, maxMs: LONGEST_REOPEN_MS }, async () => {
      try {
        const connection = await own.connection(server.id, signal);
        const stream = await openEvents(server.dialect, connection, signal);
        this.#opened({ connection, api: createApi(server.dialect, connection, signal) });
        for await (const event of stream) this.#take(event);
      } catch (error) {
        if (!signal.aborted)
          logger.log('debug', 'the events of a server cannot be followed', { id: server.id, reason: reasonOf(error) });
      }
      this.#closed();
      if (!signal.aborted) onBreak();
      return 'again';
    });
  }

  #opened(process: Following): void {
    this.#process = process;
    this.#checkedMs = undefined;
    // Events were missed: a session may have worked.
    for (const { id } of this.sessions) this.#ledger.noteEvent(id);
    this.#options.own.setFollowed(this.#options.server.id, true);
    this.#pace.hint('now');
    this.#pace.within(SUBSCRIBED_MS);
  }

  #closed(): void {
    const wasStanding = this.#process !== undefined;
    this.#process = undefined;
    this.#checkedMs = undefined;
    this.#options.own.setFollowed(this.#options.server.id, false);
    if (this.#root.signal.aborted) return;
    // The fleet learns by it where the server is gone; where there is no stream to be had, that it is asked all the same.
    if (wasStanding || this.#instances.length === 0) this.#pace.hint('now');
    if (wasStanding) this.#options.onChange();
  }

  #take(event: ServerEvent): void {
    const id = sessionIn(event);
    this.#ledger.noteEvent(id);
    const hint = hintIn(event, this.#ledger.get(id), this.#isAsking);
    if (hint === undefined) return;
    if (isEpoch(event) && id !== '') this.#ledger.noteBegin(id);
    if (isRetry(event)) this.#ledger.noteRetry(id);
    if (event.type === 'session.updated') this.#ledger.noteTitle(id);
    if (event.type === 'session.error') this.#noteError(id, event.properties['error']);
    this.#pace.hint(hint);
  }

  #noteError(id: string, value: unknown): void {
    const { data: error } = messageErrorSchema.safeParse(value);
    if (error !== undefined && !TOLD_BY_THE_STORE.has(error.name)) this.#ledger.noteError(id, saidError(error));
  }

  async #keepAsking(): Promise<void> {
    const { signal } = this.#root;
    for (;;) {
      const why = await this.#pace.next(signal);
      if (signal.aborted) return;
      this.#isAsking = true;
      const isIdle = why === 'scheduled' && this.#isSettled && (await this.#isStillIdle());
      const isWhole = isIdle || (await this.#survey());
      this.#isAsking = false;
      if (signal.aborted) return;
      this.#isSettled &&= isWhole;
      this.#pace.answered(isWhole);
      this.#show();
    }
  }

  /**
   * Where nothing ran it is enough that nothing runs: any other change makes an event, and the stream stood. Asked of the server alone,
   * since a survey of each of many makes the fleet arrange all of them again.
   */
  async #isStillIdle(): Promise<boolean> {
    const process = this.#process;
    if (process === undefined || this.sessions.some(runs)) return false;
    const startMs = this.#options.clock.monotonic();
    const isIdle = await isServerIdle(this.dialect, process.connection, this.#instances, this.#root.signal);
    if (!isIdle || this.#process !== process) return false;
    this.#checkedMs = startMs;
    return true;
  }

  /** Whether all was asked and answered. Never rejects. */
  async #survey(): Promise<boolean> {
    const { own, server, clock, logger } = this.#options;
    const { signal } = this.#root;
    const startMs = clock.monotonic();
    const startedAtMs = clock.now();
    const process = this.#process;
    try {
      const instances = await own.survey(server.id, signal);
      const seen = seenWork(instances, startedAtMs, startedAtMs - ENDED_FOR_MS);
      // To read a session of the preview is to load its directory, which runs what lies there.
      const work = server.dialect === 'opencode-2-preview' ? { ...seen, recent: [] } : seen;
      const api = this.#process?.api ?? createApi(server.dialect, await own.connection(server.id, signal), signal);
      const { isSettled, elsewhere } = await this.#ledger.take(work, api, signal);
      this.#isSettled = isSettled;
      if (signal.aborted || !work.isWhole) return false;
      this.#instances = instances;
      if (!isSettled) this.#pace.within(SETTLING_MS);
      this.#place(elsewhere);
      if (process !== undefined && this.#process === process) this.#checkedMs = startMs;
      return true;
    } catch (error) {
      if (!signal.aborted) logger.log('debug', 'a server was not asked', { id: server.id, reason: reasonOf(error) });
      return false;
    }
  }

  /** A session that began where nothing was asked is another server's by its directory, and runs in this one all the same. */
  #place(elsewhere: readonly { readonly id: string; readonly directory: string }[]): void {
    const { own, server } = this.#options;
    for (const session of elsewhere) {
      if (this.#placed.size >= MAX_PLACED) this.#placed.clear();
      if (this.#placed.has(session.id)) continue;
      this.#placed.add(session.id);
      own.worksIn(server.id, session);
      this.#pace.hint('now');
    }
  }

  /** Tells of a change of what others see; when it was asked is none. */
  #show(): void {
    const overviews = this.instances.map(({ key, name, state, reason, overview }) => [
      [key, name, state, reason],
      overview && withoutAge(overview),
    ]);
    const shown = JSON.stringify([this.checkedMs !== undefined, this.sessions, overviews]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#options.onChange();
  }
}

function withoutAge(overview: Overview): Omit<Overview, 'askedAtMs'> {
  const { askedAtMs: _, ...ageless } = overview;
  return ageless;
}

/** The same for the same id: its place among those that are asked one after the other. */
function shareOf(id: string): number {
  return createHash('sha256').update(id).digest().readUInt8(0) / 256;
}

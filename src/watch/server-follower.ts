import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';

import { type Clock, repeat } from '../base/clock.ts';
import { reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Connection } from '../http/exchange.ts';
import type { Dialect, Instance, Overview } from '../model/instance.ts';
import { runs, type WatchedSession } from '../model/watched.ts';
import { createApi } from '../opencode/dialects/dialects.ts';
import type { OpencodeApi } from '../opencode/api.ts';
import { openEvents, type ServerEvent } from '../opencode/events.ts';
import { messageErrorSchema } from '../opencode/schema.ts';
import { READ_FROM_STORE } from '../turns/follower.ts';
import { saidError } from '../turns/last-turn.ts';
import { hintIn, isEpoch, isRetry, sessionIn } from './hints.ts';
import type { OwnServer, OwnServers } from './own-servers.ts';
import { seenWork } from './seen-work.ts';
import { isServerIdle } from './server-idle.ts';
import { ENDED_FOR_MS, SessionLedger } from './session-ledger.ts';
import { SurveyPace } from './survey-pace.ts';

export interface FollowerOptions {
  readonly server: Pick<OwnServer, 'id' | 'dialect'>;
  readonly own: OwnServers;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called when anything that `Watcher.servers` shows has changed. */
  readonly onChange: () => void;
  /** Called when the event stream ends or cannot be opened: the server may be gone. */
  readonly onBreak: () => void;
}

/** The process whose events are followed. */
interface Following {
  readonly connection: Connection;
  readonly api: OpencodeApi;
}

const REOPEN_MS = 100;
const LONGEST_REOPEN_MS = 10_000;
/** OpenCode 1 subscribes some milliseconds after it has answered. A survey after this time finds what the events in between showed. */
const SUBSCRIBED_MS = 1000;
/** opencode completes a message some milliseconds after it reports the session idle. */
const SETTLING_MS = 250;
/** The preview (1.18.18) sends no event when a turn is interrupted before its first content. */
const SILENT_END_MS = 5000;
const MAX_PLACED = 100;

/** Follows one server. Its events may be lost or wrong, so they only say when to survey it. The answers of the survey are the state. */
export class ServerFollower {
  readonly #options: FollowerOptions;
  readonly #root = new AbortController();
  readonly #pace: SurveyPace;
  readonly #ledger: SessionLedger;
  #work: readonly Promise<void>[] = [];
  /** Undefined while the event stream is down. */
  #process: Following | undefined;
  /** The last survey left no question open; see `Taken`. */
  #isSettled = false;
  #isAsking = false;
  /** When the last survey began that was fully answered while the stream was open. */
  #checkedMs: number | undefined;
  #shown = '';
  #instances: readonly Instance[] = [];
  /** The latest sessions whose directories were passed to `own.worksIn`. */
  readonly #placed = new Set<string>();

  constructor(options: FollowerOptions) {
    this.#options = options;
    // Each sleep adds a listener.
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

  /** As known now, or last known if the server is gone. */
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

  /** The process is gone, and with it everything that ran. */
  interruptAll(reason: string): readonly WatchedSession[] {
    this.#ledger.interruptAll(reason);
    return this.sessions;
  }

  async close(): Promise<void> {
    this.#root.abort();
    await Promise.all(this.#work);
  }

  async #follow(): Promise<void> {
    const { own, server, clock, logger, onBreak } = this.#options;
    const { signal } = this.#root;
    await repeat({ clock, signal, firstMs: REOPEN_MS, maxMs: LONGEST_REOPEN_MS }, async () => {
      try {
        const connection = await own.connection(server.id, signal);
        const api = createApi(server.dialect, connection, signal);
        // OpenCode 1 has a stream for each directory too; this one has the events of all.
        const isOpencode1 = server.dialect === 'opencode-1';
        const stream = await (isOpencode1 ? openEvents(connection, '/global/event', signal) : api.events('', signal));
        this.#opened({ connection, api });
        for await (const event of stream) this.#take(event);
      } catch (error) {
        if (!signal.aborted)
          logger.log('debug', 'cannot follow the events of a server', { id: server.id, reason: reasonOf(error) });
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
    const wasOpen = this.#process !== undefined;
    this.#process = undefined;
    this.#checkedMs = undefined;
    this.#options.own.setFollowed(this.#options.server.id, false);
    if (this.#root.signal.aborted) return;
    // The survey shows the fleet whether the server is gone, and covers a server whose stream cannot be opened.
    if (wasOpen || this.#instances.length === 0) this.#pace.hint('now');
    if (wasOpen) this.#options.onChange();
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
    if (error !== undefined && !READ_FROM_STORE.has(error.name)) this.#ledger.noteError(id, saidError(error));
  }

  async #keepAsking(): Promise<void> {
    const { signal } = this.#root;
    for (;;) {
      const why = await this.#pace.next(signal);
      if (signal.aborted) return;
      this.#isAsking = true;
      const isWhole = await this.#ask(why);
      this.#isAsking = false;
      if (signal.aborted) return;
      this.#isSettled &&= isWhole;
      this.#pace.answered(isWhole);
      this.#show();
    }
  }

  /** Whether every request was answered. Never rejects. */
  async #ask(why: 'hinted' | 'scheduled'): Promise<boolean> {
    if (why === 'scheduled' && this.#isSettled && (await this.#isStillIdle())) return true;
    const { server, logger } = this.#options;
    try {
      return await this.#survey();
    } catch (error) {
      if (!this.#root.signal.aborted)
        logger.log('debug', 'cannot survey a server', { id: server.id, reason: reasonOf(error) });
      return false;
    }
  }

  /**
   * A cheap scheduled check: if nothing ran and nothing runs, nothing changed, since any other change sends an event. It bypasses the
   * fleet, which would rebuild its view for each of many idle servers.
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

  /** Whether every request was answered. */
  async #survey(): Promise<boolean> {
    const { own, server, clock } = this.#options;
    const { signal } = this.#root;
    const startMs = clock.monotonic();
    const startedAtMs = clock.now();
    const process = this.#process;
    const instances = await own.survey(server.id, signal);
    const seen = seenWork(instances, startedAtMs, startedAtMs - ENDED_FOR_MS);
    // Reading a session of the preview loads its directory, which runs code from there.
    const work = this.#isPreview ? { ...seen, recent: [] } : seen;
    const api = this.#process?.api ?? createApi(server.dialect, await own.connection(server.id, signal), signal);
    const { isSettled, elsewhere } = await this.#ledger.take(work, api, signal);
    this.#isSettled = isSettled;
    if (signal.aborted || !work.isWhole) return false;
    this.#instances = instances;
    if (process !== undefined && this.#process === process) this.#checkedMs = startMs;
    if (!isSettled) this.#pace.within(SETTLING_MS);
    if (this.#isPreview && this.sessions.some(runs)) this.#pace.within(SILENT_END_MS);
    this.#place(elsewhere);
    return true;
  }

  get #isPreview(): boolean {
    return this.dialect === 'opencode-2-preview';
  }

  /** Makes the next survey ask about directories in which sessions of this server may run, even if they are another server's own. */
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

  /** Calls `onChange` if anything but the age of an overview has changed. */
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

/** A stable number from 0 to 1, which spreads the surveys of many servers. */
function shareOf(id: string): number {
  return createHash('sha256').update(id).digest().readUInt8(0) / 256;
}

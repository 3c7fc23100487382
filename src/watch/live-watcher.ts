import { type Clock, WakeableSleep } from '../base/clock.ts';
import { reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { runs } from '../model/watched.ts';
import type { WatchedServer, Watcher } from './contract.ts';
import type { OwnServer, OwnServers } from './own-servers.ts';
import { ServerFollower } from './server-follower.ts';
import { ENDED_FOR_MS } from './session-ledger.ts';

export interface LiveWatcherDeps {
  readonly own: OwnServers;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Lists the servers at least this often, for changes that `own` does not report: a server that replaced another under the same id. */
const LOOK_MS = 15_000;
/** Ended servers whose interrupted sessions are kept. */
const MAX_GONE = 16;
/** Interrupted sessions kept of one ended server. */
const MAX_LEFT = 64;

/** Keeps one `ServerFollower` for each server that `own` lists. */
export class LiveWatcher implements Watcher {
  readonly #deps: LiveWatcherDeps;
  readonly #root = new AbortController();
  readonly #followers = new Map<string, ServerFollower>();
  readonly #listeners = new Set<() => void>();
  /** Ended servers with the sessions that ran in them, by server id. */
  readonly #gone = new Map<string, WatchedServer>();
  readonly #pause: WakeableSleep;
  #looking: Promise<void> | undefined;
  #unsubscribe: () => void = () => {};

  constructor(deps: LiveWatcherDeps) {
    this.#deps = deps;
    this.#pause = new WakeableSleep(deps.clock);
  }

  /** Returns immediately. */
  start(): void {
    if (this.#looking !== undefined || this.#root.signal.aborted) return;
    this.#unsubscribe = this.#deps.own.onChange(() => this.#pause.wake());
    this.#looking = this.#keepLooking();
  }

  servers(): readonly WatchedServer[] {
    const followed = [...this.#followers].map(
      ([id, { instances, sessions, lastEvents, checkedMs }]): WatchedServer => ({
        id,
        instances,
        sessions,
        lastEvents,
        checkedMs,
      }),
    );
    const all = followed.flatMap(({ sessions }) => sessions);
    const running = new Set(all.filter(runs).map(({ id }) => id));
    const ended = this.#endedServers(new Set(all.map(({ id }) => id)));
    const current = followed.map((server) => {
      // Servers of one home list the same sessions. A session that runs in one of them looks interrupted in the others.
      const own = server.sessions.filter((one) => runs(one) || !running.has(one.id));
      return { ...server, sessions: [...own, ...(ended.get(server.id)?.sessions ?? [])] };
    });
    return [...current, ...[...ended.values()].filter(({ id }) => !this.#followers.has(id))];
  }

  checkedMs(id: string): number | undefined {
    return this.#followers.get(id)?.checkedMs;
  }

  onChange(listener: () => void): () => void {
    // The same function may subscribe twice.
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /** Ends every stream and request. May be called twice. */
  async close(): Promise<void> {
    this.#root.abort();
    this.#unsubscribe();
    await this.#looking;
    await Promise.all([...this.#followers.values()].map((follower) => follower.close()));
  }

  async #keepLooking(): Promise<void> {
    const { own, logger } = this.#deps;
    const { signal } = this.#root;
    while (!signal.aborted) {
      try {
        const servers = await own.servers();
        if (signal.aborted) return;
        await this.#follow(servers);
      } catch (error) {
        logger.log('warn', 'cannot list the servers to follow', { reason: reasonOf(error) });
      }
      await this.#pause.sleep(LOOK_MS, signal);
    }
  }

  async #follow(servers: readonly OwnServer[]): Promise<void> {
    const now = new Map(servers.map((server) => [server.id, server]));
    const ended = [...this.#followers].filter(([id, { dialect }]) => now.get(id)?.dialect !== dialect);
    for (const [id, follower] of ended) {
      await follower.close();
      this.#followers.delete(id);
      this.#keepEnded(id, follower);
    }
    const { clock, logger, own } = this.#deps;
    const found = servers.filter(({ id }) => !this.#followers.has(id));
    for (const server of found) {
      const follower = new ServerFollower({
        server,
        own,
        clock,
        logger,
        onChange: () => this.#changed(),
        onBreak: () => this.#pause.wake(),
      });
      this.#followers.set(server.id, follower);
      follower.start();
    }
    if (ended.length > 0 || found.length > 0) this.#changed();
  }

  /** Keeps what ran in a server that ended, as interrupted. */
  #keepEnded(id: string, follower: ServerFollower): void {
    const { instances } = follower;
    const sessions = follower.interruptAll('its server ended while it ran');
    if (sessions.length === 0) return;
    const before = this.#gone.get(id)?.sessions.filter((one) => !sessions.some((other) => other.id === one.id)) ?? [];
    this.#gone.delete(id);
    this.#gone.set(id, {
      id,
      instances,
      sessions: [...sessions, ...before].slice(0, MAX_LEFT),
      lastEvents: new Map(),
      checkedMs: undefined,
    });
    const [oldest] = this.#gone.keys();
    if (oldest !== undefined && this.#gone.size > MAX_GONE) this.#gone.delete(oldest);
  }

  /** By id, with the sessions that were interrupted in the last hour, except `known` ones: a restarted server knows from its store how those ended. */
  #endedServers(known: ReadonlySet<string>): ReadonlyMap<string, WatchedServer> {
    const since = this.#deps.clock.now() - ENDED_FOR_MS;
    const all = [...this.#gone.values()].map((server) => ({
      ...server,
      sessions: server.sessions.filter((one) => one.sinceMs >= since && !known.has(one.id)),
    }));
    return new Map(all.filter(({ sessions }) => sessions.length > 0).map((server) => [server.id, server]));
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

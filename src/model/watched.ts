import type { Waiting } from './instance.ts';

/** A session that runs, waits or ended in the last hour, as its server's watcher last saw it. Text is clean and bounded. */
export interface WatchedSession {
  readonly id: string;
  readonly title: string;
  readonly directory: string;
  /** Of a sub-agent's session: the session that it works for. */
  readonly parentId?: string;
  readonly state: 'waiting' | 'busy' | 'retrying' | 'idle' | 'failed' | 'interrupted';
  /** When that state began, ms since the epoch by its own machine's clock. */
  readonly sinceMs: number;
  /** When its running or last turn began, if known. */
  readonly turnBeganMs?: number;
  /** Why it retries, failed or was interrupted. */
  readonly reason?: string;
  /** Its own requests; a sub-agent's are at the sub-agent's session. */
  readonly waiting: readonly Waiting[];
}

const RUNNING: ReadonlySet<WatchedSession['state']> = new Set(['busy', 'waiting', 'retrying']);

/** Whether its turn has not ended. */
export function runs({ state }: Pick<WatchedSession, 'state'>): boolean {
  return RUNNING.has(state);
}

/** The session at the root of `session`'s parents, as far as they are in `byId`. */
export function rootSession(session: WatchedSession, byId: ReadonlyMap<string, WatchedSession>): WatchedSession {
  const chain = [session];
  for (;;) {
    const root = chain.at(-1) ?? session;
    const parent = root.parentId === undefined ? undefined : byId.get(root.parentId);
    if (parent === undefined) return root;
    // A hostile machine may report a cycle; it must not hide the session.
    if (chain.includes(parent)) return session;
    chain.push(parent);
  }
}

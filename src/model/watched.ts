import type { Waiting } from './instance.ts';

/** A session that runs, waits or ended lately, as the watcher of its server last saw it. Text is clean and bounded. */
export interface WatchedSession {
  readonly id: string;
  readonly title: string;
  /** Where it works. */
  readonly directory: string;
  /** The session that it works for, of a sub-agent's. */
  readonly parentId?: string;
  readonly state: 'waiting' | 'busy' | 'retrying' | 'idle' | 'failed' | 'interrupted';
  /** When that state began, ms since the epoch by the clock of its own machine. */
  readonly sinceMs: number;
  /** When its running or last turn began, where that was seen. */
  readonly turnBeganMs?: number;
  /** Why it retries, failed or was interrupted. */
  readonly reason?: string;
  /** Sub-agents' requests are at their own session. */
  readonly waiting: readonly Waiting[];
}

/** The session for which `session` works in the end, as far as they are in `byId`. */
export function rootSession(session: WatchedSession, byId: ReadonlyMap<string, WatchedSession>): WatchedSession {
  const chain = [session];
  for (;;) {
    const root = chain.at(-1) ?? session;
    const parent = root.parentId === undefined ? undefined : byId.get(root.parentId);
    if (parent === undefined) return root;
    // No opencode has such a ring; one that lies hides nothing by it.
    if (chain.includes(parent)) return session;
    chain.push(parent);
  }
}

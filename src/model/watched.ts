import type { Waiting } from './instance.ts';

/** A session that is running, waiting or ended recently, reported by a watcher. Text is clean and bounded. */
export interface WatchedSession {
  readonly id: string;
  readonly title: string;
  readonly directory: string;
  /** Set for a sub-agent: the session that started it. */
  readonly parentId?: string;
  readonly state: 'waiting' | 'busy' | 'retrying' | 'idle' | 'failed' | 'interrupted';
  /** When that state began, ms since the epoch by its own machine's clock. */
  readonly sinceMs: number;
  /** When the current or last turn began, if that was seen. */
  readonly turnBeganMs?: number;
  /** Why it retries, failed or was interrupted. */
  readonly reason?: string;
  /** Its own requests only; a sub-agent's are listed at the sub-agent's session. */
  readonly waiting: readonly Waiting[];
}

/** Follows parents up to the root session, as far as they are in `byId`. */
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

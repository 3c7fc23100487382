import type { Instance, Waiting } from '../../src/model/instance.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import type { WatchedServer, Watcher } from '../../src/watch/contract.ts';
import { probed } from '../fleet/candidates.ts';

/** A watcher whose state a test sets by hand. */
export class HandWatcher implements Watcher {
  #servers: readonly WatchedServer[] = [];
  readonly #listeners = new Set<() => void>();

  servers(): readonly WatchedServer[] {
    return this.#servers;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  set(...servers: readonly WatchedServer[]): void {
    this.#servers = servers;
    for (const listener of this.#listeners) listener();
  }

  /** One server with these sessions. */
  show(...sessions: readonly WatchedSession[]): void {
    this.set(serverWith(sessions));
  }
}

export const SERVER_ID = 'reg-1';
export const DIRECTORY = '/home/ada/web';

export function serverWith(
  sessions: readonly WatchedSession[],
  {
    id = SERVER_ID,
    checkedMs = 1,
    name = 'desk-web',
    lastEvents = {},
  }: {
    id?: string;
    checkedMs?: number | undefined;
    name?: string;
    lastEvents?: Readonly<Record<string, number>>;
  } = {},
): WatchedServer {
  return {
    id,
    instances: [instanceAt(DIRECTORY, name)],
    sessions,
    checkedMs,
    lastEvents: new Map(Object.entries(lastEvents)),
  };
}

/** One whose event stream is down. */
export function unseen(server: WatchedServer): WatchedServer {
  return { ...server, checkedMs: undefined };
}

export function instanceAt(directory: string, name: string): Instance {
  return {
    server: { key: 'k', claims: { name }, endpoints: [probed({})] },
    key: `k ${directory}`,
    name,
    host: 'desk',
    state: 'idle',
    directory,
  };
}

export function sessionIn(state: WatchedSession['state'], sinceMs: number, given: Partial<WatchedSession> = {}) {
  const one: WatchedSession = {
    id: 'ses_1',
    title: 'Fix the build',
    directory: DIRECTORY,
    state,
    sinceMs,
    waiting: [],
    ...given,
  };
  return one;
}

/** A session that waits for a permission. */
export function asking(
  sinceMs: number,
  {
    request = 'per_1',
    text = 'bash "rm -rf build"',
    ...given
  }: Partial<WatchedSession> & { request?: string; text?: string } = {},
): WatchedSession {
  const session = sessionIn('waiting', sinceMs, given);
  const waiting: Waiting = { kind: 'permission', id: request, sessionId: session.id, text };
  return { ...session, waiting: [waiting] };
}

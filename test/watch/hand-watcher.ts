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

  checkedMs(id: string): number | undefined {
    return this.#servers.find((server) => server.id === id)?.checkedMs;
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

  /** Sets one server with these sessions. */
  show(...sessions: readonly WatchedSession[]): void {
    this.set(serverWith(sessions));
  }
}

export const DIRECTORY = '/home/ada/web';

export function serverWith(
  sessions: readonly WatchedSession[],
  lastEvents: Readonly<Record<string, number>> = {},
): WatchedServer {
  const instance: Instance = {
    server: { key: 'k', claims: { name: 'desk-web' }, endpoints: [probed({})] },
    key: `k ${DIRECTORY}`,
    name: 'desk-web',
    host: 'desk',
    state: 'idle',
    directory: DIRECTORY,
  };
  return {
    id: 'reg-1',
    instances: [instance],
    sessions,
    checkedMs: 1,
    lastEvents: new Map(Object.entries(lastEvents)),
  };
}

/** Returns the same server while its event stream is down. */
export function unseen(server: WatchedServer): WatchedServer {
  return { ...server, checkedMs: undefined };
}

export function sessionIn(
  state: WatchedSession['state'],
  sinceMs: number,
  fields: Partial<WatchedSession> = {},
): WatchedSession {
  return { id: 'ses_1', title: 'Fix the build', directory: DIRECTORY, state, sinceMs, waiting: [], ...fields };
}

/** Returns a session that waits for a permission. */
export function asking(
  sinceMs: number,
  {
    request = 'per_1',
    text = 'bash "rm -rf build"',
    ...fields
  }: Partial<WatchedSession> & { request?: string; text?: string } = {},
): WatchedSession {
  const session = sessionIn('waiting', sinceMs, fields);
  const waiting: Waiting = { kind: 'permission', id: request, sessionId: session.id, text };
  return { ...session, waiting: [waiting] };
}

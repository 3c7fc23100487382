import { singleLine } from '../../base/plain-text.ts';
import type { Activity, Instance, Overview, Waiting } from '../../model/instance.ts';
import { rootSession, type WatchedSession } from '../../model/watched.ts';
import { retryingLine } from '../../opencode/waiting.ts';

const MAX_TITLE_CHARS = 200;
const MAX_REASON_CHARS = 400;
const MAX_TEXT_CHARS = 500;
/** Requests per session. */
const MAX_WAITING = 20;

/** A root session as the page lists it. */
export interface PageSession {
  readonly instance: string;
  readonly host: string;
  readonly directory: string;
  readonly id: string;
  readonly title: string;
  readonly state: WatchedSession['state'];
  readonly sinceMs: number;
  readonly reason?: string;
  /** The session that it works for, if that is not listed. */
  readonly parent?: string;
  readonly waiting: readonly Pick<Waiting, 'kind' | 'id' | 'text'>[];
}

/** A session that an overview names only by id, as its server describes it. */
export interface KnownSession {
  readonly title: string;
  readonly directory: string;
  readonly parentId?: string | undefined;
}

export interface RowDeps {
  readonly known: (instance: Instance, sessionId: string) => KnownSession | undefined;
  /** Since when a session without a watcher has been in this state. */
  readonly since: (instance: Instance, sessionId: string, state: string) => number;
}

/** In these states the last overview is out of date. */
const SILENT: ReadonlySet<Instance['state']> = new Set(['locked', 'offline', 'unsupported', 'untrusted', 'unknown']);

/** An instance's sessions that run, wait or ended lately. A sub-agent's requests are shown at its root session. */
export function sessionRows(instance: Instance, deps: RowDeps): PageSession[] {
  const { overview } = instance;
  if (overview === undefined || SILENT.has(instance.state)) return [];
  const sessions = overview.sessions ?? derived(instance, overview, deps);
  const byId = new Map(sessions.map((one) => [one.id, one]));
  const rootOf = (one: WatchedSession): WatchedSession => rootSession(one, byId);
  const waiting = new Map<string, Waiting[]>();
  for (const one of sessions) {
    const { id } = rootOf(one);
    waiting.set(id, [...(waiting.get(id) ?? []), ...one.waiting]);
  }
  return sessions.filter((one) => rootOf(one) === one).map((one) => row(instance, one, waiting.get(one.id) ?? []));
}

function row(instance: Instance, session: WatchedSession, waiting: readonly Waiting[]): PageSession {
  const { id, title, directory, state, sinceMs, reason, parentId } = session;
  return {
    instance: instance.name,
    host: instance.host,
    directory: singleLine(directory, MAX_REASON_CHARS),
    id,
    title: singleLine(title, MAX_TITLE_CHARS),
    state: waiting.length > 0 ? 'waiting' : state,
    sinceMs,
    ...(reason !== undefined && { reason: singleLine(reason, MAX_REASON_CHARS) }),
    ...(parentId !== undefined && { parent: parentId }),
    waiting: waiting
      .slice(0, MAX_WAITING)
      .map((one) => ({ kind: one.kind, id: one.id, text: singleLine(one.text, MAX_TEXT_CHARS) })),
  };
}

/** The sessions of a server without a watcher, from its last survey. */
function derived(instance: Instance, overview: Overview, deps: RowDeps): WatchedSession[] {
  const { running, waiting, session, activity, stale = [] } = overview;
  const ids = [...new Set([...running, ...waiting.map(({ sessionId }) => sessionId)])];
  const atWork = ids.map((id): WatchedSession => {
    const own = session?.id === id ? { ...session, parentId: undefined } : deps.known(instance, id);
    const asks = waiting.filter(({ sessionId }) => sessionId === id);
    const state = asks.length > 0 ? 'waiting' : stateOf(activity, running);
    const { parentId } = own ?? {};
    return {
      id,
      title: own?.title ?? '',
      directory: own?.directory ?? instance.directory ?? '',
      ...(parentId !== undefined && { parentId }),
      state,
      sinceMs: deps.since(instance, id, state),
      ...(state === 'retrying' && activity.kind === 'retrying' && { reason: retryingLine(activity) }),
      waiting: asks,
    };
  });
  // Without a fresh status it must not be shown as idle.
  if (session === undefined || ids.includes(session.id) || stale.includes('status')) return atWork;
  const { rest } = session;
  const state = rest?.state === 'interrupted' ? 'interrupted' : rest?.state === 'starting' ? 'busy' : 'idle';
  const resting: WatchedSession = {
    id: session.id,
    title: session.title,
    directory: session.directory,
    state,
    sinceMs: session.updatedMs,
    ...(rest?.reason !== undefined && { reason: rest.reason }),
    waiting: [],
  };
  return [...atWork, resting];
}

function stateOf(activity: Activity, running: readonly string[]): 'retrying' | 'busy' {
  // If several run, any of them may be the one that retries.
  return activity.kind === 'retrying' && running.length === 1 ? 'retrying' : 'busy';
}

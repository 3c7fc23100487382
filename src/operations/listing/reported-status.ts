import type { Instance } from '../../model/instance.ts';
import { runs, type WatchedSession } from '../../model/watched.ts';
import { sentence, singleLine } from '../../base/plain-text.ts';
import { waitingLine } from '../respond/waiting.ts';
import { reportedNow } from '../reported.ts';
import type { Runtime } from '../runtime.ts';
import { foundStalled } from '../send/following.ts';
import type { StatusView } from '../shapes.ts';
import { endpointsShown, versionShown } from './endpoints-shown.ts';

const MAX_SESSIONS = 20;

/** The status from the watcher's report, without a request; undefined if the instance must be asked. */
export function reportedStatus(runtime: Runtime, instance: Instance): StatusView | undefined {
  const reported = reportedNow(runtime, instance);
  if (reported === undefined) return undefined;
  const { server, overview, name, state, directory = '', reason } = reported.instance;
  const [{ result, candidate }] = server.endpoints;
  // An instance that is no longer listed.
  if (state === 'unknown') return undefined;
  // Only the instance itself shows whether a stalled session has moved.
  if (result.status !== 'healthy' || overview?.running.some((id) => foundStalled(runtime, instance, id)))
    return undefined;
  const running = reported.sessions.filter(runs);
  // A survey finds a session some milliseconds before the watcher lists it.
  if (reported.runs && running.length === 0) return undefined;
  const latest = running.length === 0 && overview?.session?.rest?.state === state ? overview.session : undefined;
  return {
    instance: name,
    state,
    version: versionShown(result),
    ...(directory !== '' && { directory: singleLine(directory, 300) }),
    ...endpointsShown(server, candidate.endpoint),
    sessions: [
      ...running.slice(0, MAX_SESSIONS).map(rowOf),
      ...(latest === undefined || state === 'idle' ? [] : [rowOf({ ...latest, state, reason, waiting: [] })]),
    ],
    waiting: (overview?.waiting ?? []).map((one) => waitingLine(one)),
  };
}

function rowOf({
  id,
  title,
  state,
  reason,
  waiting,
}: Pick<WatchedSession, 'id' | 'title' | 'waiting'> & {
  readonly state: string;
  readonly reason?: string | undefined;
}): StatusView['sessions'][number] {
  const why = state === 'waiting' ? `for ${waiting.map((one) => waitingLine(one)).join('; ')}` : reason;
  return { id, title: singleLine(title, 100), state, ...(why !== undefined && { reason: sentence(why, 300) }) };
}

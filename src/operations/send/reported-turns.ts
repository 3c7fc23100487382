import { LinkedAbort } from '../../base/linked-abort.ts';
import type { Instance, Waiting } from '../../model/instance.ts';
import { rootSession, type WatchedSession } from '../../model/watched.ts';
import { STALL_MS } from '../../turns/follower.ts';
import type { TurnOutcome, TurnResult } from '../../turns/outcome.ts';
import type { Answer } from '../answer.ts';
import { reportedNow } from '../reported.ts';
import type { Call, Runtime } from '../runtime.ts';
import type { TurnView } from '../shapes.ts';
import { followUntil } from './following.ts';
import { waitingAnswer } from './turn-view.ts';

/** A turn as the watcher of its server says it: one that runs, or waits. */
export interface ReportedTurn {
  readonly session: Pick<WatchedSession, 'id' | 'title'>;
  readonly result?: TurnResult;
  readonly told?: Answer<TurnView>;
}

/** What is known without a request when waiting by a watcher is over. */
export interface ReportedWait {
  /** How its turns stand: one of them waits, or the time is up. Absent where the sessions are to be looked into. */
  readonly turns?: readonly ReportedTurn[];
  /** The sessions that worked when it began. */
  readonly sessionIds: readonly string[];
}

/** That something runs, and which session it is, a watcher learns a moment apart. */
const SETTLE_MS = 1000;

const WORKS: ReadonlySet<WatchedSession['state']> = new Set<WatchedSession['state']>(['busy', 'retrying']);

/**
 * Waits for the sessions of an instance, or the one with `sessionId`, for as long as the watcher of its server says that they work: the
 * next change wakes it, and nothing is asked. It ends at once where there is no watcher that can be believed, where nothing works, and
 * where a turn runs for so long that it may have stalled, which only its own events tell.
 */
export async function waitByReport(
  runtime: Runtime,
  instance: Instance,
  sessionId: string | undefined,
  call: Call,
): Promise<ReportedWait> {
  const { clock } = runtime;
  const settledMs = clock.monotonic() + SETTLE_MS;
  let sessionIds = sessionId === undefined ? undefined : [sessionId];
  for (;;) {
    const reported = reportedNow(runtime, instance);
    if (reported === undefined) return { sessionIds: sessionIds ?? [] };
    const { sessions } = reported;
    const unsettledMs = reported.runs && !call.signal.aborted ? settledMs - clock.monotonic() : 0;
    if (sessionIds === undefined && unsettledMs > 0 && rootsAtWork(sessions).length === 0) {
      await nextChange(runtime, unsettledMs, call);
      continue;
    }
    sessionIds ??= rootsAtWork(sessions);
    const turns = sessionIds.flatMap((id) => turnOf(id, sessions) ?? []);
    if (turns.length === 0 || turns.length < sessionIds.length || turns.some(({ isOver }) => isOver))
      return { sessionIds };
    const waits = turns.some(({ waiting }) => waiting !== undefined);
    const leftMs = followUntil(call) - clock.monotonic();
    const isOver = leftMs <= 0 || call.signal.aborted;
    // A person who can be asked is asked about what waits.
    if (waits && call.askPerson !== undefined && !isOver) return { sessionIds };
    if (waits || isOver) return { sessionIds, turns: turns.map((turn) => shown(runtime, reported.instance, turn)) };
    const stallMs = Math.min(...turns.map(({ beganMs }) => beganMs + STALL_MS - clock.now()));
    if (stallMs <= 0) return { sessionIds };
    await nextChange(runtime, Math.min(leftMs, stallMs), call);
  }
}

async function nextChange({ fleet, clock }: Runtime, limitMs: number, { signal }: Call): Promise<void> {
  const next = new LinkedAbort(signal);
  void clock.sleep(limitMs, next.signal).then(() => next.abort());
  await fleet.changed(next.signal);
  next.end();
}

interface Turn {
  readonly session: WatchedSession;
  /** Of it or a sub-agent of its. */
  readonly waiting: Waiting | undefined;
  /** It works no more, and does not wait. */
  readonly isOver: boolean;
  readonly beganMs: number;
}

function turnOf(id: string, sessions: readonly WatchedSession[]): Turn | undefined {
  const byId = sessionsById(sessions);
  const session = byId.get(id);
  if (session === undefined) return undefined;
  const family = sessions.filter((one) => rootSession(one, byId) === session);
  const [waiting] = family.flatMap((one) =>
    one.waiting.map((request) => ({ ...request, ...(one !== session && { ofSubAgent: true }) })),
  );
  const { state, sinceMs, turnBeganMs = sinceMs } = session;
  return { session, waiting, beganMs: turnBeganMs, isOver: waiting === undefined && !WORKS.has(state) };
}

/** Root sessions that work or wait. */
function rootsAtWork(sessions: readonly WatchedSession[]): string[] {
  const working = sessions.filter(({ state }) => WORKS.has(state) || state === 'waiting');
  const byId = sessionsById(sessions);
  return [...new Set(working.map((one) => rootSession(one, byId).id))];
}

function sessionsById(sessions: readonly WatchedSession[]): ReadonlyMap<string, WatchedSession> {
  return new Map(sessions.map((one) => [one.id, one]));
}

function shown({ words }: Runtime, { name, overview }: Instance, { session, waiting }: Turn): ReportedTurn {
  if (waiting !== undefined) return { session, told: waitingAnswer(name, session, waiting, words) };
  const { activity } = overview ?? {};
  const retrying = session.state === 'retrying' && activity?.kind === 'retrying' ? activity : undefined;
  const outcome: TurnOutcome = { kind: 'running', ...(retrying && { retrying }) };
  return { session, result: { outcome, text: '', textPending: false } };
}

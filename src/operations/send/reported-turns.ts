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

/** A running turn, or the result of a waiting one, from the report of its server's watcher. */
export type ReportedTurn =
  | { readonly session: Pick<WatchedSession, 'id' | 'title'>; readonly result: TurnResult }
  | { readonly answer: Answer<TurnView> };

/** The result of waiting by the report. */
export interface ReportedWait {
  /** The turns, if one of them waits or the time is up; absent if the sessions must be read. */
  readonly turns?: readonly ReportedTurn[];
  /** The sessions that worked at the beginning. */
  readonly sessionIds: readonly string[];
}

/** A watcher learns which session runs a moment after it learns that one runs. */
const SETTLE_MS = 1000;

const WORKS: ReadonlySet<WatchedSession['state']> = new Set<WatchedSession['state']>(['busy', 'retrying']);

/**
 * Waits while the watcher's report says that the instance's sessions (or the one with `sessionId`) work. Each change of the report
 * wakes it; it sends no request. It ends at once without a current report, if nothing works, or once a turn has run long enough
 * to have stalled, which only its own events show.
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
    // The caller then asks the person.
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
  /** Of the session or one of its sub-agents. */
  readonly waiting: Waiting | undefined;
  /** It neither works nor waits. */
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
  if (waiting !== undefined) return { answer: waitingAnswer(name, session, waiting, words) };
  const { activity } = overview ?? {};
  const retrying = session.state === 'retrying' && activity?.kind === 'retrying' ? activity : undefined;
  const outcome: TurnOutcome = { kind: 'running', ...(retrying && { retrying }) };
  return { session, result: { outcome, text: '', textPending: false } };
}

import { wallTime } from '../../base/clock.ts';
import type { Instance } from '../../model/instance.ts';
import type { Message, Session } from '../../opencode/schema.ts';
import { type FollowRequest, stageOf } from '../../turns/follower.ts';
import type { SignOfLife, TurnOutcome, TurnResult } from '../../turns/outcome.ts';
import { joinTurn } from '../../turns/turn.ts';
import { type Call, type Connected, type Runtime } from '../runtime.ts';

/** Before the caller's own limit, so that the answer still reaches it. */
const RESERVE_MS = 500;

/** More sessions than a person drives at once. */
const MAX_SIGNS = 1_000;

/** When following ends, by the monotonic clock. */
export function followUntil({ deadlineMs }: Pick<Call, 'deadlineMs'>): number {
  return deadlineMs - RESERVE_MS;
}

/** The part of a turn's request that comes from the call. */
export function followRequest(
  { name }: Pick<Instance, 'name'>,
  session: Session,
  call: Call,
): Pick<FollowRequest, 'session' | 'deadlineMs' | 'signal' | 'onText' | 'onDoing'> {
  return {
    session,
    deadlineMs: followUntil(call),
    signal: call.signal,
    onText: call.onProgress,
    onDoing: (doing) => call.onActivity?.(name, doing),
  };
}

/** Follows what a session does from now on. `act` runs while the event stream is open. */
export async function followOn(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  call: Call,
  { act, onWaiting }: Pick<FollowRequest, 'onWaiting'> & { readonly act?: () => Promise<void> },
): Promise<TurnResult> {
  const { api, instance } = connected;
  const lastSign = runtime.lastSigns.get(keyOf(instance, session));
  const request = { ...followRequest(instance, session, call), onWaiting, lastSign };
  const follow = async (): Promise<TurnResult> => {
    const result = await joinTurn(request, { api, clock: runtime.clock }, act);
    remember(runtime, instance, session, result);
    return result;
  };
  // A `wait` for everything must not silence notifications.
  return act === undefined ? await follow() : await whileMarked(runtime, session, follow);
}

/** Marks a session as followed by the call that drives its turn. */
export async function whileMarked(
  { marks }: Pick<Runtime, 'marks'>,
  { id }: Pick<Session, 'id'>,
  follow: () => Promise<TurnResult>,
): Promise<TurnResult> {
  const endMark = marks?.begin(id);
  let outcome: TurnOutcome | undefined;
  try {
    const result = await follow();
    ({ outcome } = result);
    return result;
  } finally {
    await endMark?.(outcome?.kind);
  }
}

/** Keeps the last sign of life for the next call that follows this session: a silence may outlast one call. */
export function remember(
  { lastSigns }: Runtime,
  instance: Instance,
  session: Session,
  { lastSign: last }: { readonly lastSign?: SignOfLife },
): void {
  if (last === undefined) return;
  const key = keyOf(instance, session);
  lastSigns.delete(key);
  lastSigns.set(key, last);
  const [oldest] = lastSigns.keys();
  if (lastSigns.size > MAX_SIGNS && oldest !== undefined) lastSigns.delete(oldest);
}

/** When a stalled session last showed a sign of life, ms since the epoch; undefined if no call found it stalled, or `newest`, its newest message, has changed since. */
export function stalledSince(
  { lastSigns, clock }: Pick<Runtime, 'lastSigns' | 'clock'>,
  instance: Instance,
  session: Pick<Session, 'id'>,
  newest: Message | undefined,
): number | undefined {
  const last = lastSigns.get(keyOf(instance, session));
  if (last?.stalled !== true || newest === undefined) return undefined;
  return last.stage === stageOf([newest]) ? wallTime(clock, last.atMs) : undefined;
}

/** Whether the last call that followed it found it stalled; sends no request. */
export function foundStalled(
  { lastSigns }: Pick<Runtime, 'lastSigns'>,
  instance: Instance,
  sessionId: string,
): boolean {
  return lastSigns.get(keyOf(instance, { id: sessionId }))?.stalled === true;
}

function keyOf({ server }: Pick<Instance, 'server'>, { id }: Pick<Session, 'id'>): string {
  return `${server.key}\0${id}`;
}

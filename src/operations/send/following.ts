import { wallTime } from '../../base/clock.ts';
import type { Instance } from '../../model/instance.ts';
import type { Message, Session } from '../../opencode/schema.ts';
import { type FollowRequest, stageOf } from '../../turns/follower.ts';
import type { Heard, TurnResult } from '../../turns/outcome.ts';
import { joinTurn } from '../../turns/turn.ts';
import { type Call, type Connected, type Runtime } from '../runtime.ts';

/** A little earlier than the caller's own limit, so that the answer still gets out. */
const RESERVE_MS = 500;

/** More sessions than a person drives at once. */
const MAX_HEARD = 1_000;

/** When following ends, by the monotonic clock. */
export function followUntil({ deadlineMs }: Pick<Call, 'deadlineMs'>): number {
  return deadlineMs - RESERVE_MS;
}

/** Follows what a session does from now on. `act` runs while the event stream is open; `onWaiting` is as for any turn. */
export async function followOn(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  call: Call,
  { act, onWaiting }: Pick<FollowRequest, 'onWaiting'> & { readonly act?: () => Promise<void> },
): Promise<TurnResult> {
  const { api, instance } = connected;
  const { signal } = call;
  // Only what this call set going: a `wait` for all that runs is no reason to notify nobody.
  const endMark = act && runtime.marks?.begin(session.id);
  let outcome: TurnResult['outcome'] | undefined;
  try {
    const result = await joinTurn(
      {
        session,
        deadlineMs: followUntil(call),
        signal,
        onText: call.onProgress,
        onDoing: (doing) => call.onActivity?.(instance.name, doing),
        onWaiting,
        heard: runtime.heard.get(keyOf(instance, session)),
      },
      { api, clock: runtime.clock },
      act,
    );
    remember(runtime, instance, session, result);
    ({ outcome } = result);
    return result;
  } finally {
    await endMark?.(outcome?.kind);
  }
}

/** For the next call that follows this session: a silence may be longer than one call. */
export function remember(
  { heard }: Runtime,
  instance: Instance,
  session: Session,
  { heard: last }: { readonly heard?: Heard },
): void {
  if (last === undefined) return;
  const key = keyOf(instance, session);
  heard.delete(key);
  heard.set(key, last);
  const [oldest] = heard.keys();
  if (heard.size > MAX_HEARD && oldest !== undefined) heard.delete(oldest);
}

/**
 * Since when a session has said nothing, ms since the epoch, where a call that followed it found it stalled and it has not moved since;
 * `newest` is its newest message now.
 */
export function stalledSince(
  { heard, clock }: Pick<Runtime, 'heard' | 'clock'>,
  instance: Instance,
  session: Pick<Session, 'id'>,
  newest: Message | undefined,
): number | undefined {
  const last = heard.get(keyOf(instance, session));
  if (last?.stalled !== true || newest === undefined) return undefined;
  return last.stage === stageOf([newest]) ? wallTime(clock, last.atMs) : undefined;
}

/** Whether a call that followed it found it stalled, as far as is known without asking. */
export function foundStalled({ heard }: Pick<Runtime, 'heard'>, instance: Instance, sessionId: string): boolean {
  return heard.get(keyOf(instance, { id: sessionId }))?.stalled === true;
}

function keyOf({ server }: Pick<Instance, 'server'>, { id }: Pick<Session, 'id'>): string {
  return `${server.key}\0${id}`;
}

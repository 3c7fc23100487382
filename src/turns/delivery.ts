import type { Clock } from '../base/clock.ts';
import type { OpencodeApi, Prompt } from '../opencode/api.ts';
import { mayHaveActed, RequestError } from '../http/request-error.ts';
import { type CallLimit, CallOver, checkOpen, isOver } from './call-limit.ts';

export type Delivery =
  | { readonly kind: 'accepted' }
  /** The session does not have it and will not get it. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** Not one byte of it was sent: it may be sent over another endpoint. */
  | { readonly kind: 'unsent'; readonly reason: string }
  /** The session may have it; sending it again could run it twice. */
  | { readonly kind: 'unknown'; readonly reason: string };

/**
 * Pauses between checks for a message in doubt: 18 of 18 accepted messages were readable at once, but a gateway may pass a request on
 * a second after it has given up on it.
 */
const DOUBT_PAUSES_MS = [200, 500, 1_000, 2_000, 4_000];

/** Sends a prompt, and finds out whether it arrived. */
export interface Post {
  readonly prompt: OpencodeApi['prompt'];
  readonly message: OpencodeApi['message'];
  /** Whether the event stream has been open since before the first attempt. */
  readonly sameProcess: () => boolean;
  /** Whether the session was interrupted since the stream was opened. */
  readonly wasInterrupted: () => boolean;
  /** See `OpencodeApi`: the same prompt may always be sent again. */
  readonly isIdempotent: boolean;
  /** Called if this endpoint cannot be connected to: switches to another one; false if there is none. */
  readonly leave?: () => Promise<boolean>;
}

/**
 * Sends a prompt so that it runs once. After any doubt (no answer, a broken connection, a 5xx, a body that is not JSON) the message
 * is looked up on the same process. If present, it was accepted; if absent, the identical prompt is sent again, which opencode takes
 * as the same one. After a 5xx, on a possibly different process, or once the call is over, nothing is sent again.
 * @throws {CallOver} the call was over before anything was sent
 */
export async function deliver(prompt: Prompt, post: Post, clock: Clock, limit: CallLimit): Promise<Delivery> {
  const send: Send = () => attempt(prompt, post, () => checkOpen(limit, clock));
  const first = await send();
  if (first instanceof CallOver) throw first;
  if (!(first instanceof RequestError)) return first;
  if (first.kind === 'unreachable') {
    if (await post.leave?.()) return { kind: 'unsent', reason: first.message };
    // A proxy refused it for good: this caller may not send there.
    if (first.status === 403) return { kind: 'refused', reason: first.message };
  }
  return await resolveDoubt(first, send, { prompt, post, clock, limit });
}

/** Looks for the message, and sends it again if it can only run once. */
async function resolveDoubt(
  first: RequestError,
  send: Send,
  { prompt, post, clock, limit }: { prompt: Prompt; post: Post; clock: Clock; limit: CallLimit },
): Promise<Delivery> {
  let doubt = first;
  let maybeSent = doubt.kind !== 'unreachable';
  for (const pause of DOUBT_PAUSES_MS) {
    await clock.sleep(Math.min(pause, limit.deadlineMs - clock.monotonic()), limit.signal);
    if (isOver(limit, clock)) break;
    const presence = await look(prompt, post);
    if (presence === 'present') return { kind: 'accepted' };
    if (post.isIdempotent) {
      if (post.wasInterrupted()) return unknown(doubt, WAKES_IT);
    } else {
      // After a 5xx a gateway may still pass the first copy on, which would run beside the second one.
      if (presence === 'unreadable' || doubt.kind === 'status') continue;
      if (!post.sameProcess()) return maybeSent ? unknown(doubt, LOST) : { kind: 'unsent', reason: doubt.message };
    }
    const again = await send();
    if (again instanceof CallOver) break;
    if (!(again instanceof RequestError)) return again;
    doubt = again;
    maybeSent ||= doubt.kind !== 'unreachable';
  }
  if (!maybeSent) checkOpen(limit, clock);
  return { kind: maybeSent ? 'unknown' : 'unsent', reason: doubt.message };
}

const WAKES_IT = 'somebody has interrupted the session since, and sending it again would wake it';
const LOST = 'the instance does not have the message, and may have restarted since';

function unknown({ message }: RequestError, why: string): Delivery {
  return { kind: 'unknown', reason: `${message}; ${why}` };
}

/** The outcome, or the error that leaves it in doubt. With `CallOver` this attempt sent nothing. */
type Send = () => Promise<Delivery | RequestError | CallOver>;

async function attempt(prompt: Prompt, post: Pick<Post, 'prompt'>, check: () => void): ReturnType<Send> {
  try {
    check();
    await post.prompt(prompt);
    return { kind: 'accepted' };
  } catch (error) {
    if (error instanceof CallOver) return error;
    if (!(error instanceof RequestError)) throw error;
    const rejected = error.kind === 'locked' || (error.kind === 'status' && !mayHaveActed(error));
    return rejected ? { kind: 'refused', reason: error.message } : error;
  }
}

async function look(prompt: Prompt, post: Pick<Post, 'message'>): Promise<'present' | 'absent' | 'unreadable'> {
  try {
    return (await post.message(prompt.sessionId, prompt.messageId)) === undefined ? 'absent' : 'present';
  } catch {
    return 'unreadable';
  }
}

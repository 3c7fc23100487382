import type { Clock } from '../base/clock.ts';
import type { OpencodeApi, Prompt } from '../opencode/api.ts';
import { mayHaveActed, RequestError } from '../http/request-error.ts';
import { type CallLimit, CallOver, checkOpen, isOver } from './call-limit.ts';

export type Delivery =
  | { readonly kind: 'accepted' }
  /** The session does not have it and will not get it. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** Not one byte of it left this machine: it may be sent by another way. */
  | { readonly kind: 'unsent'; readonly reason: string }
  /** It is unknown whether the session has it; sending again could run it twice. */
  | { readonly kind: 'unknown'; readonly reason: string };

/**
 * Pauses between looks for a message whose acceptance is in doubt: 18 of 18 accepted messages were readable at once, but a gateway
 * that has given up may pass the request on a second later.
 */
const DOUBT_PAUSES_MS = [200, 500, 1_000, 2_000, 4_000];

/** How a prompt gets there, and how one sees that it did. */
export interface Post {
  readonly prompt: OpencodeApi['prompt'];
  readonly message: OpencodeApi['message'];
  /** Whether the event stream has stood since before the first attempt. */
  readonly sameProcess: () => boolean;
  /** Whether the session was interrupted since the stream stands. */
  readonly wasInterrupted: () => boolean;
  /** See `OpencodeApi`: it may be sent again whatever happened meanwhile. */
  readonly isIdempotent: boolean;
  /** Finds another way where this one cannot be connected; false where there is none. */
  readonly leave?: () => Promise<boolean>;
}

/**
 * Hands a prompt to opencode so that it runs once. After any doubt (no answer, a broken
 * connection, a 5xx, a body that is no JSON) the message is looked up on the same process: present, it was accepted; absent, the
 * identical prompt is sent again, which opencode takes as the same one; after a 5xx it is only looked for. Where it may be another process by now, or once the
 * call is over, nothing is sent again.
 * @throws {CallOver} the call was over before anything was sent
 */
export async function deliver(prompt: Prompt, post: Post, clock: Clock, limit: CallLimit): Promise<Delivery> {
  const send = async (): ReturnType<typeof attempt> => await attempt(prompt, post, () => checkOpen(limit, clock));
  let doubt = await send();
  if (doubt instanceof CallOver) throw doubt;
  if (!(doubt instanceof RequestError)) return doubt;
  let maybeSent = doubt.kind !== 'unreachable';
  if (!maybeSent && (await post.leave?.())) return { kind: 'unsent', reason: doubt.message };
  if (isForbidden(doubt)) return { kind: 'refused', reason: doubt.message };
  for (const pause of DOUBT_PAUSES_MS) {
    await clock.sleep(Math.min(pause, limit.deadlineMs - clock.monotonic()), limit.signal);
    if (isOver(limit, clock)) break;
    const presence = await look(prompt, post);
    if (presence === 'present') return { kind: 'accepted' };
    if (!post.isIdempotent) {
      if (presence === 'unreadable') continue;
      // It may be on its way still, and come after one that is sent again.
      if (isHandedOn(doubt)) continue;
      if (!post.sameProcess()) return maybeSent ? lostSight(doubt) : { kind: 'unsent', reason: doubt.message };
    } else if (post.wasInterrupted())
      return {
        kind: 'unknown',
        reason: `${doubt.message}; somebody interrupted the session since, and sending it again would wake it`,
      };
    const again = await send();
    if (again instanceof CallOver) break;
    if (!(again instanceof RequestError)) return again;
    doubt = again;
    maybeSent ||= doubt.kind !== 'unreachable';
  }
  if (!maybeSent) checkOpen(limit, clock);
  return { kind: maybeSent ? 'unknown' : 'unsent', reason: doubt.message };
}

function lostSight({ message }: RequestError): Delivery {
  return {
    kind: 'unknown',
    reason: `${message}; the instance may have restarted since, and does not have the message`,
  };
}

/** An outcome where there is no doubt, else the error that leaves it open. With `CallOver` this attempt sent nothing. */
async function attempt(
  prompt: Prompt,
  post: Pick<Post, 'prompt'>,
  check: () => void,
): Promise<Delivery | RequestError | CallOver> {
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

/** Not passed on to the server, and will not be: the right to send it is missing on this way, and there is no other. */
function isForbidden({ kind, status }: RequestError): boolean {
  return kind === 'unreachable' && status === 403;
}

/** Answered by a 5xx: a gateway's says nothing of what the server behind it has, or will get. */
function isHandedOn(error: RequestError): boolean {
  return error.kind === 'status';
}

async function look(prompt: Prompt, post: Pick<Post, 'message'>): Promise<'present' | 'absent' | 'unreadable'> {
  try {
    return (await post.message(prompt.sessionId, prompt.messageId)) === undefined ? 'absent' : 'present';
  } catch {
    return 'unreadable';
  }
}

import type { Clock } from '../clock.ts';
import type { OpencodeApi, Prompt } from '../opencode/api.ts';
import { RequestError } from '../opencode/transport.ts';

export type Delivery =
  | { readonly kind: 'accepted' }
  /** The session does not have it and will not get it. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** Whether the session has it cannot be told; sending again could run it twice. */
  | { readonly kind: 'unknown'; readonly reason: string };

/** Pauses between looks for a message whose acceptance is in doubt: 18 of 18 accepted messages were readable at once. */
const DOUBT_PAUSES_MS = [200, 500, 1_000, 2_000, 4_000];

/**
 * Hands a prompt to opencode so that it runs once. After any doubt (no answer, a broken
 * connection) the message is looked up on the same process: present, it was accepted; absent, the
 * identical prompt is sent again, which opencode takes as the same one. `sameProcess` tells whether
 * the event stream has stood since before the first attempt; without that nothing is sent again, so that what is sent never goes
 * by a way that was found since.
 */
export async function deliver(
  prompt: Prompt,
  route: { readonly api: Pick<OpencodeApi, 'prompt' | 'message'> },
  sameProcess: () => boolean,
  clock: Clock,
  signal: AbortSignal,
): Promise<Delivery> {
  let doubt = await attempt(prompt, route.api);
  if (!(doubt instanceof RequestError)) return doubt;
  let maybeSent = doubt.kind !== 'unreachable';
  for (const pause of DOUBT_PAUSES_MS) {
    await clock.sleep(pause, signal);
    if (signal.aborted) break;
    const presence = await look(prompt, route.api);
    if (presence === 'present') return { kind: 'accepted' };
    if (presence === 'unreadable') continue;
    if (isRefusal(doubt)) return { kind: 'refused', reason: doubt.message };
    if (!sameProcess()) {
      return {
        kind: 'unknown',
        reason: `${doubt.message}; the instance may have restarted since, and does not have the message`,
      };
    }
    const again = await attempt(prompt, route.api);
    if (!(again instanceof RequestError)) return again;
    doubt = again;
    maybeSent ||= doubt.kind !== 'unreachable';
  }
  return { kind: maybeSent ? 'unknown' : 'refused', reason: doubt.message };
}

/** An outcome where there is no doubt, else the error that leaves it open. */
async function attempt(prompt: Prompt, api: Pick<OpencodeApi, 'prompt'>): Promise<Delivery | RequestError> {
  try {
    await api.prompt(prompt);
    return { kind: 'accepted' };
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    const rejected = error.kind === 'locked' || (error.status !== undefined && error.status < 500);
    return rejected ? { kind: 'refused', reason: error.message } : error;
  }
}

/** The server answered, with an error: it is alive, and if it does not have the message it will not. */
function isRefusal(error: RequestError): boolean {
  return error.kind === 'status';
}

async function look(prompt: Prompt, api: Pick<OpencodeApi, 'message'>): Promise<'present' | 'absent' | 'unreadable'> {
  try {
    return (await api.message(prompt.sessionId, prompt.messageId)) === undefined ? 'absent' : 'present';
  } catch {
    return 'unreadable';
  }
}

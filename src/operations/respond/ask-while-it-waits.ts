import { LinkedAbort } from '../../base/linked-abort.ts';
import { listWaiting } from '../../turns/waiting.ts';
import type { Settlement } from './approval.ts';
import { askPerson } from './ask-person.ts';
import { type Asked, goneError } from './asked.ts';
import type { AskPerson, Call, Connected, Runtime } from '../runtime.ts';

/** A person who has answered elsewhere is not kept waiting for long, and one who thinks costs little. */
const LOOK_MS = 1_000;

/**
 * Asks the person, and takes the question away from them as soon as it is settled elsewhere (in opencode's terminal,
 * by another client) or of no use any more.
 * @throws {OperationError} they gave no answer, or the session was stopped meanwhile
 */
export async function askWhileItWaits(
  runtime: Runtime,
  connected: Connected,
  asked: Asked,
  proposal: Settlement | undefined,
  call: Call & { readonly askPerson: AskPerson },
): Promise<Settlement | 'elsewhere'> {
  const { instance } = connected;
  const over = new LinkedAbort(call.signal);
  try {
    const asking = askPerson(runtime, instance, asked, proposal, { ...call, signal: over.signal }, call.askPerson);
    const first = await Promise.race([asking, fateOf(runtime, connected, asked, over.signal)]);
    if (first === 'aborted') throw goneError(instance, asked);
    if (first === 'settled') return 'elsewhere';
    return first ?? (await asking);
  } finally {
    over.end();
  }
}

/**
 * Resolves when a request does not wait any more: `settled` where somebody answered it, `aborted` where its session
 * stopped (opencode 1.18.33 lists the request still). Undefined where `signal` aborts first. Never rejects.
 */
async function fateOf(
  { clock }: Pick<Runtime, 'clock'>,
  { api }: Pick<Connected, 'api'>,
  { waiting, directory }: Asked,
  signal: AbortSignal,
): Promise<'settled' | 'aborted' | undefined> {
  const { id, sessionID } = waiting.request;
  for (;;) {
    await clock.sleep(LOOK_MS, signal);
    if (signal.aborted) return undefined;
    try {
      const [statuses, all] = await Promise.all([api.statuses(directory), listWaiting(api, directory)]);
      if (!all.some(({ request }) => request.id === id)) return 'settled';
      if (!statuses.has(sessionID)) return 'aborted';
    } catch {
      // It does not answer now; whoever answers is told of that.
    }
  }
}

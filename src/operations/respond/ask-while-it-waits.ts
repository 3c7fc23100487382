import { LinkedAbort } from '../../base/linked-abort.ts';
import { listWaiting } from '../../turns/waiting.ts';
import type { Settlement } from './approval.ts';
import { askPerson } from './ask-person.ts';
import type { Asked } from './asked.ts';
import type { AskPerson, Call, Connected, Runtime } from '../runtime.ts';

/** A person who has answered elsewhere is not kept waiting for long, and one who thinks costs little. */
const LOOK_MS = 1_000;

/**
 * Asks the person, and takes the question away from them as soon as it is settled elsewhere (in opencode's terminal,
 * by another client) or of no use any more.
 * @throws {OperationError} they gave no answer
 */
export async function askWhileItWaits(
  runtime: Runtime,
  connected: Connected,
  asked: Asked,
  proposal: Settlement | undefined,
  call: Call & { readonly askPerson: AskPerson },
): Promise<Settlement | 'elsewhere' | 'aborted'> {
  const { instance } = connected;
  const over = new LinkedAbort(call.signal);
  try {
    const asking = askPerson(runtime, instance, asked, proposal, { ...call, signal: over.signal }, call.askPerson);
    const first = await Promise.race([asking, fateOf(runtime, connected, asked, over.signal)]);
    return first ?? (await asking);
  } finally {
    over.end();
  }
}

/** Resolves when a request does not wait any more, as `fateNow`; undefined where `signal` aborts first. Never rejects. */
async function fateOf(
  { clock }: Pick<Runtime, 'clock'>,
  connected: Connected,
  asked: Asked,
  signal: AbortSignal,
): Promise<'elsewhere' | 'aborted' | undefined> {
  for (;;) {
    await clock.sleep(LOOK_MS, signal);
    if (signal.aborted) return undefined;
    // Where it does not answer now, the reply to it will say so.
    const fate = await fateNow(connected, asked).catch(() => undefined);
    if (fate !== undefined) return fate;
  }
}

/**
 * `elsewhere` where somebody answered a request, `aborted` where its session stopped (opencode 1.18.33 lists the request still);
 * undefined while it waits.
 */
export async function fateNow(
  { api }: Pick<Connected, 'api'>,
  { waiting, directory }: Pick<Asked, 'waiting' | 'directory'>,
): Promise<'elsewhere' | 'aborted' | undefined> {
  const { id, sessionID, tool } = waiting.request;
  const [statuses, all] = await Promise.all([api.statuses(directory), listWaiting(api, directory)]);
  const isListed = all.some(({ request }) => request.id === id);
  if (isListed) return statuses.has(sessionID) ? undefined : 'aborted';
  // Who aborts it may take it off the list, too.
  const asking = tool && (await api.message(sessionID, tool.messageID))?.info;
  return asking?.role === 'assistant' && asking.error?.name === 'MessageAbortedError' ? 'aborted' : 'elsewhere';
}

import { LinkedAbort } from '../../base/linked-abort.ts';
import { listWaiting } from '../../turns/waiting.ts';
import type { Settlement } from './approval.ts';
import { askPerson } from './ask-person.ts';
import type { Asked } from './asked.ts';
import type { AskPerson, Call, Connected, Runtime } from '../runtime.ts';

/** A person who has answered elsewhere sees the question go soon, and each check is cheap. */
const LOOK_MS = 1_000;

/**
 * Asks the person, and withdraws the question once it is settled elsewhere (in opencode's terminal, by another client) or its
 * session has stopped.
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

/** Resolves when the request no longer waits, as `fateNow`; undefined if `signal` aborts first. Never rejects. */
async function fateOf(
  { clock }: Pick<Runtime, 'clock'>,
  connected: Connected,
  asked: Asked,
  signal: AbortSignal,
): Promise<'elsewhere' | 'aborted' | undefined> {
  for (;;) {
    await clock.sleep(LOOK_MS, signal);
    if (signal.aborted) return undefined;
    // If the instance does not answer, the reply will fail and say so.
    const fate = await fateNow(connected, asked).catch(() => undefined);
    if (fate !== undefined) return fate;
  }
}

/**
 * `elsewhere` if somebody answered the request, `aborted` if its session stopped (opencode 1.18.33 goes on listing the request);
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
  // An abort may also remove it from the list.
  const asking = tool && (await api.message(sessionID, tool.messageID))?.info;
  return asking?.role === 'assistant' && asking.error?.name === 'MessageAbortedError' ? 'aborted' : 'elsewhere';
}

import { mayHaveActed, RequestError } from '../../http/request-error.ts';
import { listWaiting } from '../../turns/waiting.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected, Runtime } from '../runtime.ts';
import type { Settlement } from './approval.ts';
import { type Asked, askedLine } from './asked.ts';

/** opencode lets go of a request within milliseconds of its answer. */
const VERIFY_POLL_MS = 100;
const VERIFY_LIMIT_MS = 5_000;

/** Answers a request and makes sure that it took effect; false where it does not wait any more. @throws {OperationError} it took no effect */
export async function settle(
  runtime: Runtime,
  connected: Connected,
  asked: Asked,
  settlement: Settlement,
  signal: AbortSignal,
): Promise<boolean> {
  const { api, instance } = connected;
  const { waiting, directory } = asked;
  const { id, sessionID } = waiting.request;
  // opencode answers true for a request that an abort has left behind, too.
  const there = (await api.statuses(directory)).has(sessionID) && (await replyOnce(connected, asked, settlement));
  if (!there) return false;
  const until = runtime.clock.monotonic() + VERIFY_LIMIT_MS;
  while ((await listWaiting(api, directory)).some(({ request }) => request.id === id)) {
    if (runtime.clock.monotonic() >= until || signal.aborted)
      throw new OperationError(
        `${quoteName(instance.name)} took the answer, but still waits for ${askedLine(asked)}; try again, or see get_status.`,
      );
    await runtime.clock.sleep(VERIFY_POLL_MS, signal);
  }
  return true;
}

/** As `reply`; where no answer of opencode's came it may have been taken all the same, which is looked at next. */
async function replyOnce(connected: Connected, asked: Asked, settlement: Settlement): Promise<boolean> {
  try {
    return await reply(connected, asked, settlement);
  } catch (error) {
    if (error instanceof RequestError && mayHaveActed(error)) return true;
    throw error;
  }
}

async function reply({ api }: Connected, { waiting, directory }: Asked, settlement: Settlement): Promise<boolean> {
  const { id } = waiting.request;
  if (settlement.kind === 'permission')
    return await api.replyPermission(directory, id, settlement.reply, settlement.message);
  if (settlement.kind === 'answers') return await api.replyQuestion(directory, id, settlement.answers);
  return await api.rejectQuestion(directory, id);
}

/** What became of a request, in a few words. */
export function describeSettled(settlement: Settlement | 'elsewhere', asked: Asked): string {
  return `${verb(settlement)} ${askedLine(asked)}`;
}

function verb(settlement: Settlement | 'elsewhere'): string {
  if (settlement === 'elsewhere') return 'settled elsewhere while the person was asked, not by this call:';
  if (settlement.kind === 'answers') return 'answered';
  if (settlement.kind === 'reject' || settlement.reply === 'reject') return 'rejected';
  return settlement.reply === 'always' ? 'allowed always:' : 'allowed once:';
}

import type { Session } from '../../opencode/schema.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected, Runtime } from '../runtime.ts';
import type { Settlement } from './approval.ts';
import { approverFor, type Asked, askedLine, listAsked } from './asked.ts';
import { describeSettled, settle } from './settle.ts';

/** One request of one session, and the person's own answer to it. */
export interface OwnAnswer {
  readonly session: Session;
  readonly requestId: string;
  /** Called with the request as it waits now. @throws {OperationError} the answer does not fit it */
  readonly settlement: (asked: Asked) => Settlement;
}

/**
 * A person settles the very request that they saw; nothing is followed. `gone` where it does not wait any more: somebody else was
 * first, or it was aborted. What the settings let nobody settle (`never`) they settle in that opencode.
 * @throws {OperationError | RequestError} nothing was answered, or whether it took effect cannot be seen
 */
export async function respondOnce(
  runtime: Runtime,
  connected: Connected,
  { session, requestId, settlement }: OwnAnswer,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly isGone: boolean }> {
  const { api, instance } = connected;
  const name = quoteName(instance.name);
  const statuses = await api.statuses(session.directory);
  const { asked } = await listAsked(connected, [session.directory], statuses, requestId);
  const mine = asked.find((one) => one.session.id === session.id || one.waiting.request.sessionID === session.id);
  if (mine === undefined)
    return { isGone: true, text: `${name} does not wait for that any more: it was settled elsewhere, or aborted.` };
  if (approverFor(runtime, instance, mine) === 'never')
    throw new OperationError(
      `Nothing was answered: the settings let nobody settle ${askedLine(mine)} here (approve: never). Settle it in that opencode, on ${name}.`,
    );
  const chosen = settlement(mine);
  const fate = await settle(runtime, connected, mine, chosen, signal);
  if (fate === 'gone')
    return {
      isGone: true,
      text: `${name} does not wait for ${askedLine(mine)} any more: it was settled elsewhere, or aborted.`,
    };
  return { isGone: false, text: describeSettled(chosen, mine, fate === 'settled') };
}

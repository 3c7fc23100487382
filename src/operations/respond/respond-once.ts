import type { Session } from '../../opencode/schema.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected, Runtime } from '../runtime.ts';
import type { Settlement } from './approval.ts';
import { approverFor, type Asked, askedLine, goneLine, listAsked } from './asked.ts';
import { describeSettled, settle } from './settle.ts';

/** The person's own answer to one request of one session. */
export interface OwnAnswer {
  readonly session: Session;
  readonly requestId: string;
  /** Called with the request as it waits now. @throws {OperationError} the answer does not fit it */
  readonly settlement: (asked: Asked) => Settlement;
}

/**
 * Settles exactly the request that the person saw, without following the turn. `isGone`: it no longer waits, since somebody else was
 * first or it was aborted.
 * @throws {OperationError | RequestError} nothing was answered, or it cannot be seen whether the answer took effect
 */
export async function respondOnce(
  runtime: Runtime,
  connected: Connected,
  { session, requestId, settlement }: OwnAnswer,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly isGone: boolean }> {
  const { api, instance } = connected;
  const statuses = await api.statuses(session.directory);
  const { asked } = await listAsked(connected, [session.directory], statuses, requestId);
  const mine = asked.find((one) => one.session.id === session.id || one.waiting.request.sessionID === session.id);
  if (mine === undefined) return { isGone: true, text: goneLine(instance.name, 'that') };
  if (approverFor(runtime, instance, mine) === 'never')
    throw new OperationError(
      `Nothing was answered: the settings let nobody settle ${askedLine(mine)} here (approve: never). Settle it in that opencode, on ${quoteName(instance.name)}.`,
    );
  const chosen = settlement(mine);
  const fate = await settle(runtime, connected, mine, chosen, signal);
  if (fate === 'gone') return { isGone: true, text: goneLine(instance.name, askedLine(mine)) };
  return { isGone: false, text: describeSettled(chosen, mine, fate === 'settled') };
}

import { listWaiting } from '../../turns/waiting.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected, Runtime } from '../runtime.ts';
import { makeChange, unseenLine } from '../send/change.ts';
import type { Settlement } from './approval.ts';
import { type Asked, askedLine } from './asked.ts';

/**
 * Answers a request and checks that this took effect. `gone`: it did not wait any more. `unsure`: it no longer waits, but opencode's
 * own answer did not come.
 * @throws {OperationError} it took no effect, or that cannot be seen
 */
export async function settle(
  runtime: Runtime,
  connected: Connected,
  asked: Asked,
  settlement: Settlement,
  signal: AbortSignal,
): Promise<'settled' | 'unsure' | 'gone'> {
  const { api, instance } = connected;
  const { waiting, directory } = asked;
  const { id, sessionID } = waiting.request;
  // opencode also answers true for the leftover request of an aborted turn.
  if (!(await api.statuses(directory)).has(sessionID)) return 'gone';
  let wasThere = true;
  const made = await makeChange(runtime, {
    make: async () => {
      wasThere = await reply(connected, asked, settlement);
    },
    shows: async () => !wasThere || !(await listWaiting(api, directory)).some(({ request }) => request.id === id),
    signal,
  });
  if (!wasThere) return 'gone';
  if (made.unseen !== undefined) {
    const line = unseenLine(quoteName(instance.name), made, `it still waits for ${askedLine(asked)}`);
    throw new OperationError(
      ({ status }) => `Answer failed: ${line}. See ${status}, and answer again if it still waits.`,
    );
  }
  return made.doubt === undefined ? 'settled' : 'unsure';
}

async function reply({ api }: Connected, { waiting, directory }: Asked, settlement: Settlement): Promise<boolean> {
  const { id } = waiting.request;
  if (settlement.kind === 'permission')
    return await api.replyPermission(directory, id, settlement.reply, settlement.message);
  if (settlement.kind === 'answers') return await api.replyQuestion(directory, id, settlement.answers);
  return await api.rejectQuestion(directory, id);
}

export function describeSettled(settlement: Settlement | 'elsewhere', asked: Asked, isSure = true): string {
  const doubt = isSure ? '' : " (opencode's answer did not come, but it no longer waits)";
  return `${verb(settlement)} ${askedLine(asked)}${doubt}`;
}

function verb(settlement: Settlement | 'elsewhere'): string {
  if (settlement === 'elsewhere') return 'settled elsewhere while the person was asked, not by this call:';
  if (settlement.kind === 'answers') return 'answered';
  if (settlement.kind === 'reject' || settlement.reply === 'reject') return 'rejected';
  return settlement.reply === 'always' ? 'allowed always:' : 'allowed once:';
}

import { systemClock } from '../../base/clock.ts';
import { isRevoked, Revocation } from '../../node/revocation.ts';
import { OperationError } from '../../operations/answer.ts';
import type { Shell } from './shell.ts';

export const REVOKED =
  'revoked: nothing of this user is served to browsers or other machines. To serve again, run: opencode-mcp node --allow';

/** @throws {OperationError} serving is revoked, so that an address would lead nowhere */
export function refuseWhileRevoked({ settings }: Shell): void {
  if (isRevoked(settings.stateDir)) throw new OperationError(REVOKED);
}

/** Resolves when the command must end or serving is revoked; at once if it already is. */
export async function untilRevoked({ settings, logger, signal }: Shell): Promise<'revoked' | 'ended'> {
  const revocation = new Revocation({ stateDir: settings.stateDir, clock: systemClock, logger });
  await revocation.until('revoked', signal);
  await revocation.close();
  return revocation.isRevoked ? 'revoked' : 'ended';
}

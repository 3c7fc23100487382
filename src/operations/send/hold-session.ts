import type { Session } from '../../opencode/schema.ts';
import { type CallSpan, type Connected, limitOf, type Runtime } from '../runtime.ts';

/** Between probes of the holder's instance; most holders release before the first. */
const LOOK_MS = 2_000;

/**
 * Takes the lock of a session; our changes to one session run one at a time, even on different instances, since these may share
 * it. A copy on another machine does not wait for a holder whose instance cannot be reached. Returns the release function.
 * @throws {CallOver} the call was over first
 */
export async function holdSession(
  { lock, fleet, clock }: Runtime,
  { instance }: Pick<Connected, 'instance'>,
  { id }: Pick<Session, 'id'>,
  call: CallSpan,
): Promise<() => void> {
  const whenLost = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      await clock.sleep(LOOK_MS, signal);
      const isThere = await fleet.reach(instance, signal).then(
        () => true,
        () => false,
      );
      if (!isThere) return;
    }
  };
  return await lock.acquire(id, limitOf(call), { place: instance.server.key, whenLost });
}

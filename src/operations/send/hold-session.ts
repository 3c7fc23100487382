import type { Session } from '../../opencode/schema.ts';
import { type CallSpan, type Connected, limitOf, type Runtime } from '../runtime.ts';

/** Looks at the instance of one that is waited for: most are done before the first. */
const LOOK_MS = 2_000;

/**
 * Our changes of one session go one after the other, also where several instances have it: they may share their sessions. Gives
 * what lets go of it. A copy on another machine does not wait for an instance that cannot be reached.
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

import pLimit from 'p-limit';
import type { Instance, InstanceState } from '../../model/instance.ts';
import { foundStalled, stalledSince } from './following.ts';
import { type CallSpan, type Connected, connectTo, type Runtime } from '../runtime.ts';
import { stalled } from '../sessions/session-state.ts';

/** An instance as it is listed: the directory does not follow turns, and knows no stall. */
export interface Listed extends Omit<Instance, 'state'> {
  readonly state: InstanceState | 'stalled';
}

/** At once; a fleet of which more stall than this has other worries. */
const ASKED_TOGETHER = 8;

/**
 * Tells those as stalled that work on a session which a call found stalled, and which has not moved since. Only such
 * ones are asked anything.
 */
export async function withStalls(
  runtime: Runtime,
  instances: readonly Instance[],
  call: CallSpan,
): Promise<readonly Listed[]> {
  const limit = pLimit(ASKED_TOGETHER);
  return await Promise.all(
    instances.map(async (instance): Promise<Listed> => {
      const sessions = instance.overview?.running ?? [];
      if (instance.state !== 'busy' || !sessions.some((id) => foundStalled(runtime, instance, id))) return instance;
      const sinceMs = await limit(() => earliestStall(runtime, instance, sessions, call));
      return sinceMs === undefined ? instance : { ...instance, ...stalled(sinceMs) };
    }),
  );
}

async function earliestStall(
  runtime: Runtime,
  instance: Instance,
  sessions: readonly string[],
  call: CallSpan,
): Promise<number | undefined> {
  try {
    const stalls = await stallsAmong(runtime, await connectTo(runtime, instance, call), sessions);
    return stalls.size === 0 ? undefined : Math.min(...stalls.values());
  } catch {
    // The next look at it shows that it does not answer.
    return undefined;
  }
}

/** Since when those of the sessions say nothing that were found stalled and have not moved since, in ms since the epoch, by id; without those that cannot be read. */
export async function stallsAmong(
  runtime: Runtime,
  { api, instance }: Connected,
  sessions: Iterable<string>,
): Promise<ReadonlyMap<string, number>> {
  const stalls = new Map<string, number>();
  await Promise.all(
    [...sessions]
      .filter((id) => foundStalled(runtime, instance, id))
      .map(async (id) => {
        const page = await api.messages(id, { limit: 1 }).catch(() => undefined);
        const sinceMs = stalledSince(runtime, instance, { id }, page?.messages.at(-1));
        if (sinceMs !== undefined) stalls.set(id, sinceMs);
      }),
  );
  return stalls;
}

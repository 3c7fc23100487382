import pLimit from 'p-limit';
import type { Instance, InstanceState } from '../../model/instance.ts';
import { foundStalled, stalledSince } from './following.ts';
import { type CallSpan, type Connected, connectTo, type Runtime } from '../runtime.ts';
import { stalled } from '../sessions/session-state.ts';

/** An instance in a listing. A snapshot has no `stalled`, since the fleet follows no turns. */
export interface Listed extends Omit<Instance, 'state'> {
  readonly state: InstanceState | 'stalled';
}

/** Requests at once. */
const ASKED_TOGETHER = 8;

/** Marks an instance as stalled if a call found one of its running sessions stalled and that has not moved since. Asks only such instances. */
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
    // The next probe shows that it does not answer.
    return undefined;
  }
}

/** By session id, when each stalled one last showed a sign of life, ms since the epoch. Sessions that cannot be read are left out. */
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

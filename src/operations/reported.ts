import type { Instance } from '../model/instance.ts';
import { isReported } from '../model/report.ts';
import type { WatchedSession } from '../model/watched.ts';
import type { Runtime } from './runtime.ts';

/** An instance as the watcher of its server says it is now. */
export interface ReportedInstance {
  readonly instance: Instance;
  /** Those that run or wait, and those that ended lately; of an OpenCode 2 as a whole in all of its directories. */
  readonly sessions: readonly WatchedSession[];
}

/** Undefined where no watcher says it that can be believed, or it does not answer. */
export function reportedNow(
  { fleet }: Pick<Runtime, 'fleet'>,
  { key }: Pick<Instance, 'key'>,
): ReportedInstance | undefined {
  const { instances, resting } = fleet.snapshot();
  const all = [...instances, ...resting];
  const instance = all.find((one) => one.key === key);
  if (instance?.overview?.sessions === undefined || !isReported(instance.server)) return undefined;
  if (instance.server.endpoints[0].result.status !== 'healthy') return undefined;
  const { sessions } = instance.overview;
  if (instance.directory !== undefined) return { instance, sessions };
  const parts = all.filter(({ server }) => server.key === instance.server.key);
  return { instance, sessions: parts.flatMap(({ overview }) => overview?.sessions ?? []) };
}

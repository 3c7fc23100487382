import type { Instance } from '../model/instance.ts';
import { currentReport } from '../model/report.ts';
import type { WatchedSession } from '../model/watched.ts';
import type { Runtime } from './runtime.ts';

/** An instance as the watcher of its server says it is now. */
export interface ReportedInstance {
  readonly instance: Instance;
  /** Those that run or wait, and those that ended lately; of an OpenCode 2 as a whole in all of its directories. */
  readonly sessions: readonly WatchedSession[];
  /** Something runs, which may be listed among the sessions a moment later. */
  readonly runs: boolean;
}

/** Undefined where no watcher says it that can be believed, or it does not answer. */
export function reportedNow(
  { fleet }: Pick<Runtime, 'fleet'>,
  { key }: Pick<Instance, 'key'>,
): ReportedInstance | undefined {
  const { instances, resting } = fleet.snapshot();
  const instance = [...instances, ...resting].find((one) => one.key === key);
  if (instance?.server.endpoints[0].result.status !== 'healthy') return undefined;
  const { server, directory } = instance;
  const report = server.endpoints.map(({ candidate }) => currentReport(candidate)).find((one) => one !== undefined);
  // Of one that is not listed any more the overview is the last that was shown.
  const said = report?.overviews.filter((one) => directory === undefined || one.directory === directory) ?? [];
  const sessions = said.map((one) => one.sessions);
  if (sessions.length === 0 || !sessions.every((one) => one !== undefined)) return undefined;
  return { instance, sessions: sessions.flat(), runs: said.some(({ running }) => running.length > 0) };
}

import type { Instance } from '../model/instance.ts';
import { currentReport } from '../model/report.ts';
import type { WatchedSession } from '../model/watched.ts';
import type { Runtime } from './runtime.ts';

/** An instance by the current report of its server's watcher. */
export interface ReportedInstance {
  readonly instance: Instance;
  /** Sessions that run, wait or ended lately; for an OpenCode 2 as a whole, in all of its directories. */
  readonly sessions: readonly WatchedSession[];
  /** Something runs, though its session may be listed only a moment later. */
  readonly runs: boolean;
}

/** Undefined without a current report, or if the instance does not answer. */
export function reportedNow(
  { fleet }: Pick<Runtime, 'fleet'>,
  { key }: Pick<Instance, 'key'>,
): ReportedInstance | undefined {
  const { instances, resting } = fleet.snapshot();
  const instance = [...instances, ...resting].find((one) => one.key === key);
  if (instance?.server.endpoints[0].result.status !== 'healthy') return undefined;
  const { server, directory } = instance;
  const report = server.endpoints.map(({ candidate }) => currentReport(candidate)).find((one) => one !== undefined);
  // An instance that is no longer listed has an old overview of its own: the report's counts.
  const overviews = report?.overviews.filter((one) => directory === undefined || one.directory === directory) ?? [];
  const sessions = overviews.map((one) => one.sessions);
  if (sessions.length === 0 || !sessions.every((one) => one !== undefined)) return undefined;
  return { instance, sessions: sessions.flat(), runs: overviews.some(({ running }) => running.length > 0) };
}

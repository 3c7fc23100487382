import type { ProbedEndpoint, Server } from '../model/instance.ts';
import type { ReportedOverview, ReportedServer } from '../model/report.ts';
import type { WatchedSession } from '../model/watched.ts';
import type { WatchedServer } from './contract.ts';

/** What is known of a server, by directory, its own first and without ages; undefined if it has not answered yet. */
export function reportedServer({ instances, sessions }: WatchedServer): ReportedServer | undefined {
  const asked = instances[0] && latestAsked(instances[0].server);
  if (asked?.result.status !== 'healthy' || asked.overview === undefined) return undefined;
  const { directory: own } = asked.result;
  const others = [...(asked.elsewhere ?? [])].filter(([directory]) => directory !== own);
  const all = new Map([[own, asked.overview], ...others]);
  // A directory in which nothing runs any more may have no overview; its sessions go to the server's own.
  const placeOf = ({ directory }: WatchedSession): string => (all.has(directory) ? directory : own);
  const overviews = [...all].map(([directory, overview]): ReportedOverview => {
    const { askedAtMs: _, stale: __, ...rest } = overview;
    return { directory, ...rest, sessions: sessions.filter((session) => placeOf(session) === directory) };
  });
  return { result: asked.result, overviews };
}

/** The endpoint through which the server was asked last. */
function latestAsked({ endpoints }: Server): ProbedEndpoint | undefined {
  const askedAtMs = ({ overview }: ProbedEndpoint): number => overview?.askedAtMs ?? 0;
  const healthy = endpoints.filter(({ result }) => result.status === 'healthy');
  return healthy.toSorted((one, other) => askedAtMs(other) - askedAtMs(one))[0];
}

import type { ProbedEndpoint, Server } from '../model/instance.ts';
import type { ReportedOverview, ReportedServer } from '../model/report.ts';
import type { WatchedSession } from '../model/watched.ts';
import type { WatchedServer } from './contract.ts';

/** What is known of a server by directory, its own first; undefined where it has not answered yet. Ages are left out. */
export function reportedServer({ instances, sessions }: WatchedServer): ReportedServer | undefined {
  const asked = instances[0] && latestAsked(instances[0].server);
  if (asked?.result.status !== 'healthy' || asked.overview === undefined) return undefined;
  const { directory: own } = asked.result;
  const others = [...(asked.elsewhere ?? [])].filter(([directory]) => directory !== own);
  const all = new Map([[own, asked.overview], ...others]);
  // Of a directory in which nothing runs any more there may be nothing else to say.
  const placeOf = ({ directory }: WatchedSession): string => (all.has(directory) ? directory : own);
  const overviews = [...all].map(([directory, overview]): ReportedOverview => {
    const { askedAtMs: _, stale: __, ...rest } = overview;
    return { directory, ...rest, sessions: sessions.filter((session) => placeOf(session) === directory) };
  });
  return { result: asked.result, overviews };
}

/** Several endpoints lead to one server: of the one that it was asked by last. */
function latestAsked({ endpoints }: Server): ProbedEndpoint | undefined {
  const askedAtMs = ({ overview }: ProbedEndpoint): number => overview?.askedAtMs ?? 0;
  const healthy = endpoints.filter(({ result }) => result.status === 'healthy');
  return healthy.toSorted((one, other) => askedAtMs(other) - askedAtMs(one))[0];
}

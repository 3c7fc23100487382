import { ChangeNotifiers } from '../base/change-notifier.ts';
import type { Clock } from '../base/clock.ts';
import type { DiscoverySource } from '../discovery/source.ts';
import type { Candidate } from '../model/candidate.ts';
import { endpointKey } from '../model/endpoint-key.ts';
import type { WatchedSession } from '../model/watched.ts';
import { REPORT_LIFETIME_MS, type ReportedOverview, type ReportedServer, Reports } from '../model/report.ts';
import type { WatchedServer, Watcher } from './contract.ts';

/** `source` of this machine, with what this process's own watcher says on each candidate that it follows: who looks at them asks nothing. */
export function withReports(
  source: DiscoverySource,
  watcher: Watcher,
  clock: Pick<Clock, 'monotonic'>,
): Required<DiscoverySource> {
  const closing = new AbortController();
  const notifiers = new ChangeNotifiers(closing.signal);
  const forget = watcher.onChange(() => notifiers.notify());
  const reports = new Reports();
  const isCurrent = (id: string): boolean => {
    const { checkedMs } = watcher.servers().find((server) => server.id === id) ?? {};
    return checkedMs !== undefined && clock.monotonic() - checkedMs < REPORT_LIFETIME_MS;
  };
  return {
    name: source.name,
    async scan(signal, options) {
      const scan = await source.scan(signal, options);
      const followed = watcher.servers().filter(({ checkedMs }) => checkedMs !== undefined);
      reports.set(followed.flatMap(reportedBy), isCurrent);
      const ids = new Map(followed.flatMap(sightingsBy));
      const candidates = scan.candidates.map((candidate) => {
        const report = reports.get(ids.get(sightingOf(candidate)) ?? '');
        return report === undefined ? candidate : { ...candidate, report };
      });
      return { ...scan, candidates };
    },
    changes(signal) {
      const notifier = notifiers.open(signal);
      const pass = async (): Promise<void> => {
        if (source.changes === undefined) return;
        for await (const _ of source.changes(notifier.ended)) notifier.notify();
        notifier.end();
      };
      // Who reads begins again with what has ended, as with the source itself.
      pass().catch(() => notifier.end());
      notifier.notify();
      return notifier;
    },
    async close() {
      closing.abort();
      forget();
      await source.close?.();
    },
  };
}

function reportedBy({ id, instances, sessions }: WatchedServer): readonly (readonly [string, ReportedServer])[] {
  const [asked] = (instances[0]?.server.endpoints ?? [])
    .filter(({ result }) => result.status === 'healthy')
    .toSorted((one, other) => (other.overview?.askedAtMs ?? 0) - (one.overview?.askedAtMs ?? 0));
  if (asked?.result.status !== 'healthy' || asked.overview === undefined) return [];
  const { directory: own } = asked.result;
  const all = new Map([[own, asked.overview], ...(asked.elsewhere ?? [])]);
  // Of a directory in which nothing runs any more there may be nothing else to say.
  const placeOf = ({ directory }: WatchedSession): string => (all.has(directory) ? directory : own);
  const overviews = [...all].map(([directory, overview]): ReportedOverview => {
    const { askedAtMs: _, stale: __, ...rest } = overview;
    return { ...rest, directory, sessions: sessions.filter((session) => placeOf(session) === directory) };
  });
  return [[id, { result: asked.result, overviews }]];
}

function sightingsBy({ id, instances }: WatchedServer): readonly (readonly [string, string])[] {
  const endpoints = instances.flatMap(({ server }) => server.endpoints);
  return endpoints.map(({ candidate }) => [sightingOf(candidate), id]);
}

/** The same place, registered by the same process. */
function sightingOf({ source, key, endpoint, claims }: Candidate): string {
  return JSON.stringify([source, key, endpointKey(endpoint), claims.id, claims.connectedAt]);
}

import { ChangeNotifiers } from '../base/change-notifier.ts';
import type { Clock } from '../base/clock.ts';
import type { DiscoverySource } from '../discovery/source.ts';
import type { Candidate } from '../model/candidate.ts';
import { endpointKey } from '../model/endpoint-key.ts';
import { REPORT_LIFETIME_MS, Reports } from '../model/report.ts';
import type { WatchedServer, Watcher } from './contract.ts';
import { reportedServer } from './reported-server.ts';

/** Adds the reports of this process's own watcher to the candidates of `source`, so that probing them takes no request. */
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
    const checkedMs = watcher.checkedMs(id);
    return checkedMs !== undefined && clock.monotonic() - checkedMs < REPORT_LIFETIME_MS;
  };
  return {
    name: source.name,
    async scan(signal, options) {
      const scan = await source.scan(signal, options);
      const followed = watcher.servers().filter(({ checkedMs }) => checkedMs !== undefined);
      reports.set(
        followed.flatMap((server) => {
          const reported = reportedServer(server);
          return reported === undefined ? [] : [[server.id, reported] as const];
        }),
        isCurrent,
      );
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
      // The reader reopens changes that ended, as it does with the source itself.
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

function sightingsBy({ id, instances }: WatchedServer): readonly (readonly [string, string])[] {
  const endpoints = instances.flatMap(({ server }) => server.endpoints);
  return endpoints.map(({ candidate }) => [sightingOf(candidate), id]);
}

/** Identifies a registration: the same address, registered by the same process. */
function sightingOf({ source, key, endpoint, claims }: Candidate): string {
  return JSON.stringify([source, key, endpointKey(endpoint), claims.id, claims.connectedAt]);
}

import type { Candidate } from './candidate.ts';
import type { Overview, ProbeResult, Server } from './instance.ts';

/** What a server is doing in one directory, reported by a watcher. */
export interface ReportedOverview extends Omit<Overview, 'askedAtMs' | 'stale'> {
  /** Empty for an OpenCode 2: the overview covers all of its directories. */
  readonly directory: string;
}

export interface ReportedServer {
  readonly result: Extract<ProbeResult, { status: 'healthy' }>;
  readonly overviews: readonly ReportedOverview[];
}

/**
 * State of a server from the watcher on its own machine, used instead of a probe. Like claims it only labels: its directories
 * never go into a request. The object stays the same until its content changes.
 */
export interface Report extends ReportedServer {
  /** Whether the watcher is still in contact, so that any change would have arrived. */
  readonly isCurrent: () => boolean;
}

/** Longer than a watcher's request may be held open; only a machine that slept exceeds it. */
export const REPORT_LIFETIME_MS = 60_000;

/** The reports of one watcher, by any key. */
export class Reports {
  #all = new Map<string, { readonly text: string; readonly report: Report }>();

  get(key: string): Report | undefined {
    return this.#all.get(key)?.report;
  }

  /** Replaces all reports; unchanged ones stay the same object. */
  set(servers: Iterable<readonly [string, ReportedServer]>, isCurrent: (key: string) => boolean): void {
    const before = this.#all;
    this.#all = new Map();
    for (const [key, server] of servers) {
      const text = JSON.stringify(server);
      const known = before.get(key);
      const report = { ...server, isCurrent: () => isCurrent(key) };
      this.#all.set(key, known?.text === text ? known : { text, report });
    }
  }
}

export function currentReport({ report }: Candidate): Report | undefined {
  return report?.isCurrent() === true ? report : undefined;
}

/** Whether a watcher reports this server now, which is as good as a probe just made. */
export function isReported({ endpoints }: Server): boolean {
  return endpoints.some(({ candidate }) => currentReport(candidate) !== undefined);
}

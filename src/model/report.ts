import type { Candidate } from './candidate.ts';
import type { Overview, ProbeResult, Server } from './instance.ts';

/** What a server does in one directory, as a watcher says it. */
export interface ReportedOverview extends Omit<Overview, 'askedAtMs' | 'stale'> {
  /** Empty: of an OpenCode 2 in all of its directories. */
  readonly directory: string;
}

export interface ReportedServer {
  readonly result: Extract<ProbeResult, { status: 'healthy' }>;
  readonly overviews: readonly ReportedOverview[];
}

/**
 * What the watcher on a server's own machine says of it, so that the server itself need not be asked. It only names and labels, as
 * claims do: its directories go into a request no more than theirs. One object for as long as nothing of it changes.
 */
export interface Report extends ReportedServer {
  /** Whether the watcher can still be believed: it would have said by now what has changed. */
  readonly isCurrent: () => boolean;
}

/** No answer or held request of a watcher is older while it is believed; after a sleep of this machine all are. */
export const REPORT_LIFETIME_MS = 60_000;

/** What one watcher says of the servers that it follows, by any key. */
export class Reports {
  #all = new Map<string, { readonly text: string; readonly report: Report }>();

  get(key: string): Report | undefined {
    return this.#all.get(key)?.report;
  }

  /** Keeps exactly these; one of which nothing has changed stays the same object. */
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

/** Whether what is known of a server is what its watcher says, and so as good as if it had been asked just now. */
export function isReported({ endpoints }: Server): boolean {
  return endpoints.some(({ candidate }) => currentReport(candidate) !== undefined);
}

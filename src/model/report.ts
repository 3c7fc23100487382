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

export function currentReport({ report }: Candidate): Report | undefined {
  return report?.isCurrent() === true ? report : undefined;
}

/** Whether what is known of a server is what its watcher says, and so as good as if it had been asked just now. */
export function isReported({ endpoints }: Server): boolean {
  return endpoints.some(({ candidate }) => currentReport(candidate) !== undefined);
}

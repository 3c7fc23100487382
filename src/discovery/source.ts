import type { Candidate, Note } from '../model/candidate.ts';

export interface Scan {
  readonly candidates: readonly Candidate[];
  readonly notes: readonly Note[];
  /** What normally gives no candidate, and why: a peer with nothing listening. Shown by the doctor only. */
  readonly dropped?: readonly Note[];
}

export interface ScanOptions {
  /** Requested by a person: also retry what is in back-off after a failure. */
  readonly thorough?: boolean;
}

/**
 * A source only discovers: it never probes, never decides that something is alive, and never reads the environment.
 *
 * Contract, checked by the conformance suite for every source:
 * - `scan` returns everything visible now or rejects; never a partial result. It rejects with
 *   `SourceUnavailableError` if the system behind it is missing.
 * - After `signal` aborts, `scan` rejects and `changes` ends, both promptly.
 * - `changes` yields when a new scan may be worthwhile, and once when it has begun to listen,
 *   because earlier changes sent no notification. It carries no data, may yield spuriously, keeps
 *   at most one notification for a slow reader, may miss a change (polling finds it), and survives
 *   the loss of what it watches. Only its signal, its reader's `return` or `close` ends it.
 * - `close` may be called twice and without a previous scan; afterwards nothing is yielded and
 *   no timer, watcher, socket or child process is left.
 */
export interface DiscoverySource {
  readonly name: string;
  scan(signal: AbortSignal, options?: ScanOptions): Promise<Scan>;
  changes?(signal: AbortSignal): AsyncIterable<void>;
  close?(): Promise<void>;
}

/** The first `max` notes; one more counts the rest. */
export function boundedNotes(notes: readonly Note[], max: number, subject: string): readonly Note[] {
  if (notes.length <= max) return notes;
  return [...notes.slice(0, max), { subject, reason: `and ${notes.length - max} more` }];
}

/** The system behind a source is missing: no directory, no socket, no multicast. Logged once; not a failure. */
export class SourceUnavailableError extends Error {
  override readonly name = 'SourceUnavailableError';
}

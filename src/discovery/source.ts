import type { Candidate, Note } from '../model/candidate.ts';

/**
 * The contract of a discovery source and what one yields. A source only looks: it never
 * probes, never decides that something is alive, and never reads the environment.
 */

export interface Scan {
  readonly candidates: readonly Candidate[];
  readonly notes: readonly Note[];
  /** What was seen and gives no candidate in the normal course of things, and why: a peer on which nothing listens. Shown by the doctor alone. */
  readonly dropped?: readonly Note[];
}

export interface ScanOptions {
  /** A person asked for it: what is looked at less often because it failed is looked at, too; bounded like every scan. */
  readonly thorough?: boolean;
}

/**
 * Contract, checked by the conformance suite for every source:
 * - `scan` gives everything visible now, or rejects; never a part of it. It rejects with
 *   `SourceUnavailableError` when the system behind it is not there.
 * - After `signal` aborts, `scan` rejects and `changes` ends, both promptly.
 * - `changes` yields when it may be worth scanning again, and first when it has begun to listen,
 *   since what changed between a scan and then sent no notification. It carries no data, may
 *   yield too often, keeps at most one notification for a slow reader, may miss a change (the
 *   poll finds it), and survives what it watches going away. It ends only by its signal, by its
 *   reader's `return` or by `close`.
 * - `close` may be called twice and without a scan before; afterwards nothing is yielded and
 *   no timer, watcher, socket or child is left.
 */
export interface DiscoverySource {
  readonly name: string;
  scan(signal: AbortSignal, options?: ScanOptions): Promise<Scan>;
  changes?(signal: AbortSignal): AsyncIterable<void>;
  close?(): Promise<void>;
}

/** The system behind a source is not on this machine: no directory, no socket, no multicast. Said once; not an error. */
export class SourceUnavailableError extends Error {
  override readonly name = 'SourceUnavailableError';
}

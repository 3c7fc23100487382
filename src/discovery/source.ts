import type { HeaderValue } from '../config/file/instance-headers.ts';
import type { CredentialRef } from '../config/file/secret-ref.ts';
import type { Dial } from '../base/dial.ts';

/**
 * The contract of a discovery source and what one yields. A source only looks: it never
 * probes, never decides that something is alive, and never reads the environment.
 */

/** How an endpoint is reached, best first: the order in which ways to one instance are preferred. */
export const ROUTES = ['loopback', 'tailnet', 'relay', 'url', 'lan'] as const;
export type Route = (typeof ROUTES)[number];

/** Where to send HTTP requests for one opencode server. */
export interface Endpoint {
  /** Scheme, host, port and optional path prefix, without a trailing slash: `http://127.0.0.1:4096`. */
  readonly url: string;
  readonly route: Route;
  /** Extra request headers. Secret: never logged, never shown. Of an endpoint that requests go to, all are text. */
  readonly headers?: Readonly<Record<string, HeaderValue>>;
  /** Makes the connection where one cannot simply connect. One function for all endpoints that are reached by the same means. */
  readonly dial?: Dial;
  /** The user whose registration this is: on this machine its password goes to a port of theirs, too. */
  readonly ownerUid?: number;
  /** A person wrote this URL: it gets its password even where this machine cannot see who holds the port. */
  readonly configured?: true;
}

/**
 * What a source says of the instance, not yet checked. Text is already bounded and free of
 * control characters. `directory` only labels and compares: it is never put into a request,
 * because opencode executes what lies in a directory it is asked about.
 */
export interface Claims {
  /** Given by `opencode-connected`; the same in every registration of one process. */
  readonly id?: string;
  readonly name?: string;
  readonly hostname?: string;
  /** The port opencode listens on at its own machine; a tunnel's port is in the endpoint. */
  readonly localPort?: number;
  readonly directory?: string;
  /** Milliseconds since the Unix epoch. */
  readonly connectedAt?: number;
}

/** An untrusted candidate is listed with the reason and otherwise left alone: not probed, no credential, not driven. */
export type Trust = { readonly level: 'trusted' } | { readonly level: 'untrusted'; readonly reason: string };

/** One thing that a source saw. */
export interface Candidate {
  /** Name of the source. */
  readonly source: string;
  /** Identifies the sighting within its source for as long as it lasts: a file name, a configured name. */
  readonly key: string;
  readonly endpoint: Endpoint;
  readonly claims: Claims;
  readonly trust: Trust;
  /** The credential that came with the sighting; it goes before any configured rule. */
  readonly credential?: CredentialRef;
  /** Set where a person named this instance in the configuration: it stays listed while offline. */
  readonly pinned?: true;
}

/** Something about a scan that a person should know: a file that could not be used, a cap that was reached. */
export interface Note {
  /** What it is about: a file path, a directory, a configured name. Bounded, without control characters. */
  readonly subject: string;
  /** What is wrong, and what to do where that is known. */
  readonly reason: string;
}

export interface Scan {
  readonly candidates: readonly Candidate[];
  readonly notes: readonly Note[];
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

import type { HeaderValue } from '../config/file/instance-headers.ts';
import type { CredentialRef } from '../config/file/secret-ref.ts';
import type { Dial } from '../base/dial.ts';
import type { Report } from './report.ts';

/** How an endpoint is reached, in order of preference. */
export const ROUTES = ['loopback', 'tailnet', 'relay', 'url', 'lan'] as const;

export type Route = (typeof ROUTES)[number];

/** Where to send HTTP requests for one opencode server. */
export interface Endpoint {
  /** Scheme, host, port and optional path prefix, without a trailing slash: `http://127.0.0.1:4096`. */
  readonly url: string;
  readonly route: Route;
  /** Extra request headers. Secret: never logged, never shown. All are resolved to text before a request is sent. */
  readonly headers?: Readonly<Record<string, HeaderValue>>;
  /** Makes the connection if a plain TCP connect does not reach it. Endpoints reached by the same means share one function. */
  readonly dial?: Dial;
  /** Owner of the registration. On this machine, a port held by that user may receive the password too. */
  readonly ownerUid?: number;
  /** The process that claims to listen there. If another process holds the port, nothing is sent. */
  readonly holderPid?: number;
  /** The URL is from the configuration: its password is sent even if the holder of the port cannot be determined. */
  readonly configured?: true;
}

/**
 * Unverified facts from a source. Text is already bounded and free of control characters.
 * `directory` is used for labels and comparison only, never in a request: opencode executes
 * code from a directory named in a request.
 */
export interface Claims {
  /** Chosen by `opencode-connected`; the same in every registration of one process. */
  readonly id?: string;
  readonly name?: string;
  readonly hostname?: string;
  /** Port on opencode's own machine; the port of a tunnel is in the endpoint. */
  readonly localPort?: number;
  readonly directory?: string;
  /** Milliseconds since the Unix epoch. */
  readonly connectedAt?: number;
  /**
   * Set for an OpenCode 2 service. `pid` is from the service's file and must match `/api/info` (the preview does not report it).
   * Absent if the candidate is on another machine, whose node service has checked the pid.
   */
  readonly service?: { readonly pid?: number; readonly version?: string; readonly isPreview?: true };
}

/** An untrusted candidate is listed with the reason; it is not probed, gets no credential and cannot be driven. */
export type Trust = { readonly level: 'trusted' } | { readonly level: 'untrusted'; readonly reason: string };

/** One instance as one source sees it. */
export interface Candidate {
  readonly source: string;
  /** Stable and unique within its source: a file name, a configured name. */
  readonly key: string;
  readonly endpoint: Endpoint;
  readonly claims: Claims;
  readonly trust: Trust;
  /** A credential found by the source; takes precedence over configured rules. */
  readonly credential?: CredentialRef;
  /** The source's guess why it may not answer; appended to the reason if it does not. Safe to show. */
  readonly hint?: string;
  /** Named in the configuration: stays listed while offline. */
  readonly pinned?: true;
  /** Set while a watcher follows the server. A new report does not make it a different candidate. */
  readonly report?: Report;
}

/** Something about a scan that the user should know: an unusable file, a limit that was reached. */
export interface Note {
  /** A file path, a directory, a configured name. Bounded, without control characters. */
  readonly subject: string;
  /** What is wrong and, if known, what to do. */
  readonly reason: string;
}

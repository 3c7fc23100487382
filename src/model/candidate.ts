import type { HeaderValue } from '../config/file/instance-headers.ts';
import type { CredentialRef } from '../config/file/secret-ref.ts';
import type { Dial } from '../base/dial.ts';
import type { Report } from './report.ts';

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
  /** This process, of this user, says that it listens there: nothing is sent where another one does. */
  readonly holderPid?: number;
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
  /**
   * It is an OpenCode 2 service. `pid`: as its own file says, and `/api/info` says pid and version again, except of the preview. Without
   * one its own machine has checked that.
   */
  readonly service?: { readonly pid?: number; readonly version?: string; readonly isPreview?: true };
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
  /** Why it may not answer, as its source sees it; goes behind the reason where it does not. Safe to show. */
  readonly hint?: string;
  /** Set where a person named this instance in the configuration: it stays listed while offline. */
  readonly pinned?: true;
  /** Where a watcher follows that server: another report makes no other candidate. */
  readonly report?: Report;
}

/** Something about a scan that a person should know: a file that could not be used, a cap that was reached. */
export interface Note {
  /** What it is about: a file path, a directory, a configured name. Bounded, without control characters. */
  readonly subject: string;
  /** What is wrong, and what to do where that is known. */
  readonly reason: string;
}

/** One node of the tailnet. Ids are strings, because they exceed 2^53. */
export interface TailnetNode {
  /** Stable node id. */
  readonly id: string;
  /** Not unique. */
  readonly hostName: string;
  /** Fully qualified, without the trailing dot; empty without MagicDNS. */
  readonly dnsName: string;
  readonly os: string;
  readonly userId: string;
  /** IPv4 and IPv6 addresses in the tailnet, in no particular order. */
  readonly addresses: readonly string[];
  /** With the `tag:` prefix. A tagged node belongs to no user. */
  readonly tags: readonly string[];
  /** Connected to the control server: not reachability, and can be wrong. */
  readonly online: boolean;
  readonly expired: boolean;
  /** Shared in from another tailnet, or a sharee. */
  readonly shared: boolean;
  /** An exit node for hire (Mullvad). */
  readonly exitNodeForHire: boolean;
}

export interface TailnetStatus {
  /** The daemon's, like `1.98.10-t0123abc`. */
  readonly version: string | undefined;
  /** `Running`, `NeedsLogin`, `NeedsMachineAuth`, `Stopped`, `Starting`, … */
  readonly backendState: string;
  /** False for userspace networking: inbound connections arrive on loopback, outbound ones need `dial`. */
  readonly tun: boolean;
  readonly self: TailnetNode | undefined;
  readonly peers: readonly TailnetNode[];
  /** Login names by user id. */
  readonly logins: ReadonlyMap<string, string>;
}

/** The identity at the other end of a connection. */
export interface Whois {
  readonly node: Pick<TailnetNode, 'id' | 'dnsName' | 'tags' | 'userId'>;
  /** The node's user; `tagged-devices` for a tagged node. */
  readonly login: string;
  readonly userId: string;
  /** Application capabilities granted to this node here: by name, the objects of all grants. */
  readonly capabilities: ReadonlyMap<string, readonly unknown[]>;
}

/** tailscaled's LocalAPI. Every call is bounded in time and size and rejects with `LocalApiError`. */
export interface LocalApi {
  status(signal?: AbortSignal): Promise<TailnetStatus>;
  /** `address` is `ip:port`, IPv6 in brackets, without `::ffff:`. Undefined if tailscaled does not know it. */
  whois(address: string, signal?: AbortSignal): Promise<Whois | undefined>;
  /** Yields once when it has begun to listen, then whenever something may have changed. Reconnects; ends with the signal. */
  watch(signal: AbortSignal): AsyncIterable<void>;
  /** A raw stream through tailscaled; required if it has no TUN. */
  dial(host: string, port: number, signal?: AbortSignal): Promise<import('node:stream').Duplex>;
}

/**
 * - `missing`: no daemon (no socket, or nothing listens)
 * - `denied`: this user may not open the socket or make this call
 * - `stopped`: the daemon runs, but is logged out or stopped
 * - `failed`: anything else, such as a slow or unexpected answer
 */
export type LocalApiFailure = 'missing' | 'denied' | 'stopped' | 'failed';

export class LocalApiError extends Error {
  override readonly name = 'LocalApiError';
  readonly kind: LocalApiFailure;

  constructor(kind: LocalApiFailure, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.kind = kind;
  }
}

import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { quoteShort, singleLine } from '../base/plain-text.ts';
import { type LocalApi, LocalApiError, type TailnetNode, type TailnetStatus } from '../tailscale/types.ts';
import { reasonOf } from '../base/errors.ts';

/** This machine in its tailnet while tailscaled is logged in. */
export interface Tailnet {
  readonly self: TailnetNode;
  /** False: inbound connections arrive on loopback. */
  readonly tun: boolean;
}

export interface TailnetViewDeps {
  readonly api: LocalApi;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called after each change of `current`. */
  readonly onChange: (tailnet: Tailnet | undefined) => void;
}

/** A tailnet of thousands changes all the time, and each read covers every peer. */
export const MIN_READ_INTERVAL_MS = 1000;
/** Finds changes that the bus missed. */
export const POLL_MS = 30_000;
/** While tailscaled is away, only its socket shows its return. */
export const AWAY_POLL_MS = 2000;

/** Follows tailscaled through restarts, logins and new addresses. */
export class TailnetView {
  readonly #deps: TailnetViewDeps;
  readonly #root = new AbortController();
  #peers: ReadonlyMap<string, TailnetNode> = new Map();
  #current: Tailnet | undefined;
  #reading: Promise<void> | undefined;
  #scheduledRead: Promise<void> | undefined;
  #lastReadMs = Number.NEGATIVE_INFINITY;
  #hinted = false;
  #wake: () => void = () => {};
  #lastLogged: string | undefined;
  #loops: readonly Promise<void>[] = [];

  constructor(deps: TailnetViewDeps) {
    this.#deps = deps;
  }

  /** Undefined before the first answer, and while tailscaled is away, stopped or logged out. */
  get current(): Tailnet | undefined {
    return this.#current;
  }

  start(): void {
    this.#loops = [this.#follow(), this.#listen()];
  }

  /** The peer with this stable id. If it is unknown, waits for the next read: it may just have joined. */
  async peer(id: string): Promise<TailnetNode | undefined> {
    const known = this.#peers.get(id);
    if (known !== undefined) return known;
    await this.#nextRead();
    return this.#peers.get(id);
  }

  /** Something may have changed: reads the status soon. */
  suspect(): void {
    this.#hinted = true;
    this.#wake();
  }

  async close(): Promise<void> {
    this.#root.abort();
    this.#wake();
    await Promise.all(this.#loops);
  }

  async #follow(): Promise<void> {
    const { clock } = this.#deps;
    const { signal } = this.#root;
    while (!signal.aborted) {
      this.#hinted = false;
      await this.#read();
      await clock.sleep(MIN_READ_INTERVAL_MS, signal);
      const rest = new AbortController();
      this.#wake = () => rest.abort();
      if (this.#hinted || signal.aborted) rest.abort();
      await clock.sleep((this.#current === undefined ? AWAY_POLL_MS : POLL_MS) - MIN_READ_INTERVAL_MS, rest.signal);
    }
  }

  /** The watch reopens itself until the signal aborts. */
  async #listen(): Promise<void> {
    for await (const _ of this.#deps.api.watch(this.#root.signal)) this.suspect();
  }

  /** A read that begins after this call, shared by all callers. */
  #nextRead(): Promise<void> {
    const { clock } = this.#deps;
    this.#scheduledRead ??= (async () => {
      await this.#reading;
      await clock.sleep(Math.max(0, this.#lastReadMs + MIN_READ_INTERVAL_MS - clock.monotonic()), this.#root.signal);
      this.#scheduledRead = undefined;
      await this.#read();
    })();
    return this.#scheduledRead;
  }

  #read(): Promise<void> {
    this.#reading ??= this.#readStatus().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readStatus(): Promise<void> {
    const { api, clock } = this.#deps;
    const { signal } = this.#root;
    try {
      const status = await api.status(signal);
      if (!signal.aborted) this.#learn(status);
    } catch (error) {
      if (!signal.aborted) this.#failed(error);
    } finally {
      this.#lastReadMs = clock.monotonic();
    }
  }

  #learn({ backendState, self, tun, peers }: TailnetStatus): void {
    if (backendState !== 'Running' || self === undefined || self.addresses.length === 0) {
      this.#lose(
        `tailscaled is in state ${quoteShort(backendState, 40)}${backendState === 'Running' ? ' without an address' : ''}; run tailscale up`,
      );
      return;
    }
    this.#peers = new Map(peers.map((peer) => [peer.id, peer]));
    const before = this.#current;
    this.#current = { self, tun };
    this.#lastLogged = undefined;
    if (before === undefined) {
      this.#deps.logger.log('info', 'in the tailnet', {
        name: self.dnsName === '' ? self.hostName : self.dnsName,
        addresses: self.addresses.join(' '),
        mode: tun ? 'tun' : 'userspace',
      });
    }
    this.#deps.onChange(this.#current);
  }

  #failed(error: unknown): void {
    // A slow or malformed answer does not mean that the tailnet is gone, and whois is called for every caller anyway.
    if (error instanceof LocalApiError && error.kind !== 'failed') this.#lose(error.message);
    else this.#warnOnce("cannot read tailscaled's status; using the last known one", reasonOf(error));
  }

  #lose(reason: string): void {
    this.#warnOnce('not in the tailnet, so nothing is served', reason);
    this.#peers = new Map();
    this.#current = undefined;
    this.#deps.onChange(undefined);
  }

  /** Logs a reason again only after it has changed. */
  #warnOnce(what: string, reason: string): void {
    if (this.#lastLogged === what + reason) return;
    this.#lastLogged = what + reason;
    this.#deps.logger.log('warn', what, { reason: singleLine(reason, 300) });
  }
}

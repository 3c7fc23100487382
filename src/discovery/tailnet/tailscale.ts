import { setMaxListeners } from 'node:events';
import type { Clock } from '../../base/clock.ts';
import type { Dial } from '../../base/dial.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import type { Logger } from '../../base/log.ts';
import { quoteName } from '../../base/plain-text.ts';
import { type ChangeNotifier, ChangeNotifiers } from '../../base/change-notifier.ts';
import { addressFor, type SortedPeers, sortPeers } from '../../tailscale/eligible.ts';
import { backendProblem, createLocalApi } from '../../tailscale/local-api.ts';
import { type LocalApi, LocalApiError, type TailnetNode, type TailnetStatus } from '../../tailscale/types.ts';
import type { TailnetSettings } from '../../config/settings.ts';
import { PeerTable } from './peer-table.ts';
import { peerName, type PeerSite, TAILSCALE_SOURCE } from './peer.ts';
import type { Note } from '../../model/candidate.ts';
import { type DiscoverySource, type Scan, type ScanOptions, SourceUnavailableError } from '../source.ts';

export interface TailscaleDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default: the LocalAPI at `socketPath`. */
  readonly localApi?: LocalApi;
}

/**
 * How long the first scan, and a thorough one, wait for peers; a later answer causes a hint. Half of the three seconds that a
 * listing may take, since what is found must still be probed, and some machine is always asleep or behind a firewall.
 */
export const PEERS_BUDGET_MS = 1500;
/** For the other scans: a silent peer must not delay the news from another. */
export const LATER_BUDGET_MS = 500;

/** Bus and peers may send hints continuously; each scan costs a status, which is megabytes in a large tailnet. */
const STATUS_PACE_MS = 1000;

/** Enough to show what is wrong. */
const MAX_NOTES = 50;

export function createTailscaleSource(options: TailnetSettings, dependencies: TailscaleDependencies): TailscaleSource {
  return new TailscaleSource(options, dependencies);
}

/** Instances on other machines of the tailnet, from their node services or on the configured ports. */
export class TailscaleSource implements DiscoverySource {
  readonly name = TAILSCALE_SOURCE;
  readonly #options: TailnetSettings;
  readonly #clock: Clock;
  readonly #api: LocalApi;
  readonly #peers: PeerTable;
  readonly #root = new AbortController();
  readonly #notifiers = new ChangeNotifiers(this.#root.signal);
  readonly #running = new Set<Promise<unknown>>();
  /** One function, because it is part of an endpoint's identity. */
  readonly #dial: Dial;
  /** Scans that are waiting for peers, and will report their changes. */
  #waitingScans = 0;
  #changes = 0;
  /** The value of `#changes` at the last scan. */
  #reportedChanges = 0;
  #wasScanned = false;
  #status: TailnetStatus | undefined;
  #statusMs = 0;
  /** The bus has sent something since the last status. */
  #isBusNews = true;

  constructor(options: TailnetSettings, { clock, logger, localApi }: TailscaleDependencies) {
    const { socketPath, nodePort, ports } = options;
    // Every dial listens to it.
    setMaxListeners(0, this.#root.signal);
    this.#options = options;
    this.#clock = clock;
    this.#api = localApi ?? createLocalApi({ socketPath, clock, logger });
    this.#dial = (host, port) => this.#api.dial(host, port, this.#root.signal);
    const onChange = (): void => {
      this.#changes += 1;
      this.#notifyUnreported();
    };
    this.#peers = new PeerTable({ nodePort, ports, clock, onChange });
  }

  async scan(signal: AbortSignal, { thorough = false }: ScanOptions = {}): Promise<Scan> {
    const stop = new LinkedAbort(this.#root.signal, signal);
    try {
      return await this.#scan(stop.signal, thorough);
    } finally {
      stop.end();
      // The scan may have failed, and so not reported what changed while it waited.
      this.#notifyUnreported();
    }
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    const notifier = this.#notifiers.open(signal, () => {
      if (this.#notifiers.size === 0) this.#run(this.#peers.unfollow());
    });
    if (notifier.ended.aborted) return notifier;
    this.#run(this.#followBus(notifier));
    this.#peers.follow();
    return notifier;
  }

  async close(): Promise<void> {
    this.#root.abort(new Error(`the source ${TAILSCALE_SOURCE} is closed`));
    await this.#peers.close();
    await Promise.all(this.#running);
  }

  async #scan(signal: AbortSignal, thorough: boolean): Promise<Scan> {
    // Changes on peers are returned at once: neither tailscaled nor other peers delay them.
    const isNews = this.#wasScanned && !thorough && this.#reportedChanges !== this.#changes;
    const isFresh = this.#clock.monotonic() - this.#statusMs < STATUS_PACE_MS;
    if (isNews && isFresh && !this.#isBusNews && this.#status !== undefined) return this.#found(this.#status);
    this.#isBusNews = false;
    const status = await this.#askStatus(signal).catch((error: unknown) => {
      // tailscaled is restarting or logged out: open connections may hang.
      this.#status = undefined;
      if (error instanceof SourceUnavailableError || isStopped(error)) this.#peers.askAllAgain();
      throw error;
    });
    this.#status = status;
    this.#statusMs = this.#clock.monotonic();
    this.#peers.keep(this.#sites(status, sortPeers(status, this.#options).eligible));
    const asking = this.#peers.ask({ thorough });
    this.#run(asking);
    if (!isNews) await this.#waitForPeers(asking, signal, thorough);
    return this.#found(status);
  }

  #found(status: TailnetStatus): Scan {
    const { eligible, others } = sortPeers(status, this.#options);
    const { candidates, notes, dropped } = this.#peers.found;
    this.#reportedChanges = this.#changes;
    this.#wasScanned = true;
    return {
      candidates,
      notes: [...this.#ownNotes(status), ...notes.slice(0, MAX_NOTES)],
      dropped: [
        ...dropped,
        ...withoutAddress(status, eligible),
        ...others.map(({ peer, reason }) => noteOn(peer, reason)),
      ],
    };
  }

  async #askStatus(signal: AbortSignal): Promise<TailnetStatus> {
    signal.throwIfAborted();
    let status: TailnetStatus;
    try {
      status = await this.#api.status(signal);
    } catch (error) {
      if (!(error instanceof LocalApiError) || error.kind !== 'missing') throw error;
      throw new SourceUnavailableError(error.message, { cause: error });
    }
    const problem = backendProblem(status.backendState);
    // A failure, not unavailable: someone with Tailscale but no tailnet should see it.
    if (problem !== undefined) throw new LocalApiError('stopped', problem);
    return status;
  }

  #sites(status: TailnetStatus, eligible: SortedPeers['eligible']): PeerSite[] {
    const dial = status.tun ? undefined : this.#dial;
    return eligible.flatMap((node) => {
      const address = addressFor(node, status.self);
      return address === undefined ? [] : [{ node, address, dial }];
    });
  }

  async #waitForPeers(asking: Promise<void>, signal: AbortSignal, thorough: boolean): Promise<void> {
    const budgetMs = thorough || !this.#wasScanned ? PEERS_BUDGET_MS : LATER_BUDGET_MS;
    this.#waitingScans += 1;
    try {
      await Promise.race([asking, this.#clock.sleep(budgetMs, signal)]);
    } finally {
      this.#waitingScans -= 1;
    }
    signal.throwIfAborted();
  }

  #ownNotes({ self }: TailnetStatus): Note[] {
    const { tags, users } = this.#options;
    if (self === undefined || self.tags.length === 0 || tags.length > 0 || users.length > 0) return [];
    const reason = `this machine is tagged (${self.tags.join(', ')}) and so belongs to no user: no peer counts as your own; set OPENCODE_TAILNET_USERS or OPENCODE_TAILNET_TAGS`;
    return [{ subject: TAILSCALE_SOURCE, reason }];
  }

  async #followBus(notifier: ChangeNotifier): Promise<void> {
    for await (const _ of this.#api.watch(notifier.ended)) {
      this.#isBusNews = true;
      notifier.notify();
      await this.#clock.sleep(STATUS_PACE_MS, notifier.ended);
    }
  }

  #notifyUnreported(): void {
    if (this.#waitingScans > 0 || this.#reportedChanges === this.#changes) return;
    this.#notifiers.notify();
  }

  #run(work: Promise<unknown>): void {
    const settled = work.catch(() => {}).finally(() => this.#running.delete(settled));
    this.#running.add(settled);
  }
}

function withoutAddress({ self }: TailnetStatus, eligible: SortedPeers['eligible']): Note[] {
  return eligible
    .filter((peer) => addressFor(peer, self) === undefined)
    .map((peer) => noteOn(peer, 'has no address of a family that this machine also has'));
}

function noteOn(peer: TailnetNode, reason: string): Note {
  return { subject: quoteName(peerName(peer)), reason };
}

function isStopped(error: unknown): boolean {
  return error instanceof LocalApiError && error.kind === 'stopped';
}

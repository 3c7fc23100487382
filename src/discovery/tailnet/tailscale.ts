import { setMaxListeners } from 'node:events';
import * as z from 'zod';
import type { Clock } from '../../base/clock.ts';
import type { Dial } from '../../base/dial.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import type { Logger } from '../../base/log.ts';
import { quoteName } from '../../base/plain-text.ts';
import { type ChangeNotifier, ChangeNotifiers } from '../../base/change-notifier.ts';
import { addressFor, type SortedPeers, sortPeers } from '../../tailscale/eligible.ts';
import { backendProblem, createLocalApi } from '../../tailscale/local-api.ts';
import { type LocalApi, LocalApiError, type TailnetNode, type TailnetStatus } from '../../tailscale/types.ts';
import { PeerBook } from './peer-book.ts';
import { peerName, type PeerSite, TAILSCALE_SOURCE } from './peer.ts';
import type { Note } from '../../model/candidate.ts';
import { type DiscoverySource, type Scan, type ScanOptions, SourceUnavailableError } from '../source.ts';

const portNumber = z.int().min(1).max(65_535);

export const tailscaleOptions = z.object({
  socketPath: z.string().min(1).optional(),
  /** Of the node service. */
  nodePort: portNumber,
  /** Of a bare opencode. */
  ports: z.array(portNumber).readonly(),
  tags: z.array(z.string()).readonly(),
  users: z.array(z.string()).readonly(),
});
export type TailscaleOptions = z.infer<typeof tailscaleOptions>;

export interface TailscaleDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  /** In place of the one at `socketPath`. */
  readonly localApi?: LocalApi;
}

/**
 * The first scan, and one that a person asked for, wait so long for peers; who answers later is in the next, which is hinted
 * at. Half of the three seconds in which a listing is to be there, and what is found has yet to be probed: some machine
 * of one's own is always asleep or behind a firewall.
 */
export const PEERS_BUDGET_MS = 1500;
/** The others: a peer that does not answer must not hold up the news of one that does. */
export const LATER_BUDGET_MS = 500;

/** The bus can be busy without end, and so can peers; each hint costs a status, which is megabytes in a large tailnet. */
const STATUS_PACE_MS = 1000;

/** Enough to see what is wrong. */
const MAX_NOTES = 50;

export function createTailscaleSource(options: TailscaleOptions, dependencies: TailscaleDependencies): TailscaleSource {
  return new TailscaleSource(options, dependencies);
}

/** Instances on other machines of the tailnet: of their node services, and of bare opencodes on the configured ports. */
export class TailscaleSource implements DiscoverySource {
  readonly name = TAILSCALE_SOURCE;
  readonly #options: TailscaleOptions;
  readonly #clock: Clock;
  readonly #api: LocalApi;
  readonly #book: PeerBook;
  readonly #root = new AbortController();
  readonly #notifiers = new ChangeNotifiers(this.#root.signal);
  readonly #running = new Set<Promise<unknown>>();
  /** Always the same one: an endpoint with another is another endpoint. */
  readonly #dial: Dial;
  /** Scans that wait for the peers, and tell what they say themselves. */
  #waiting = 0;
  /** Counts changes on the peers, and those that a scan has reported. */
  #changes = 0;
  #told = 0;
  #wasScanned = false;
  #status: TailnetStatus | undefined;
  #statusMs = 0;
  /** The bus has said something since the status was asked for. */
  #isBusNews = true;

  constructor(options: TailscaleOptions, { clock, logger, localApi }: TailscaleDependencies) {
    const { socketPath, nodePort, ports } = options;
    // Every dial listens for the end.
    setMaxListeners(0, this.#root.signal);
    this.#options = options;
    this.#clock = clock;
    this.#api = localApi ?? createLocalApi({ socketPath, clock, logger });
    this.#dial = (host, port) => this.#api.dial(host, port, this.#root.signal);
    const onChange = (): void => {
      this.#changes += 1;
      this.#notifyUntold();
    };
    this.#book = new PeerBook({ nodePort, ports, clock, onChange });
  }

  async scan(signal: AbortSignal, { thorough = false }: ScanOptions = {}): Promise<Scan> {
    const stop = new LinkedAbort(this.#root.signal, signal);
    try {
      return await this.#look(stop.signal, thorough);
    } finally {
      stop.end();
      // It may have failed after it had waited.
      this.#notifyUntold();
    }
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    const notifier = this.#notifiers.open(signal, () => {
      if (this.#notifiers.size === 0) this.#run(this.#book.unfollow());
    });
    if (notifier.ended.aborted) return notifier;
    this.#run(this.#followBus(notifier));
    this.#book.follow();
    return notifier;
  }

  async close(): Promise<void> {
    this.#root.abort(new Error(`the source ${TAILSCALE_SOURCE} is closed`));
    await this.#book.close();
    await Promise.all(this.#running);
  }

  async #look(signal: AbortSignal, thorough: boolean): Promise<Scan> {
    // What a peer has to say is waited for by somebody: neither the machines nor the other peers hold it up.
    const isNews = this.#wasScanned && !thorough && this.#told !== this.#changes;
    const isFresh = this.#clock.monotonic() - this.#statusMs < STATUS_PACE_MS;
    if (isNews && isFresh && !this.#isBusNews && this.#status !== undefined) return this.#found(this.#status);
    this.#isBusNews = false;
    const status = await this.#askStatus(signal).catch((error: unknown) => {
      // Restarting, or logged out: connections of before that may hang without a word.
      this.#status = undefined;
      if (error instanceof SourceUnavailableError || isStopped(error)) this.#book.doubt();
      throw error;
    });
    this.#status = status;
    this.#statusMs = this.#clock.monotonic();
    this.#book.keep(this.#sites(status, sortPeers(status, this.#options).eligible));
    const asking = this.#book.ask({ thorough });
    this.#run(asking);
    if (!isNews) await this.#waitForPeers(asking, signal, thorough);
    return this.#found(status);
  }

  #found(status: TailnetStatus): Scan {
    const { eligible, others } = sortPeers(status, this.#options);
    const { candidates, notes, dropped } = this.#book.found;
    this.#told = this.#changes;
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
    // Not `unavailable`: someone with Tailscale but no tailnet should see it.
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
    this.#waiting += 1;
    try {
      await Promise.race([asking, this.#clock.sleep(budgetMs, signal)]);
    } finally {
      this.#waiting -= 1;
    }
    signal.throwIfAborted();
  }

  #ownNotes({ self }: TailnetStatus): Note[] {
    const { tags, users } = this.#options;
    if (self === undefined || self.tags.length === 0 || tags.length > 0 || users.length > 0) return [];
    const reason = `this machine is tagged (${self.tags.join(', ')}) and so belongs to no user: no peer counts as one's own; set OPENCODE_TAILNET_USERS or OPENCODE_TAILNET_TAGS`;
    return [{ subject: TAILSCALE_SOURCE, reason }];
  }

  async #followBus(notifier: ChangeNotifier): Promise<void> {
    for await (const _ of this.#api.watch(notifier.ended)) {
      this.#isBusNews = true;
      notifier.notify();
      await this.#clock.sleep(STATUS_PACE_MS, notifier.ended);
    }
  }

  #notifyUntold(): void {
    if (this.#waiting > 0 || this.#told === this.#changes) return;
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
    .map((peer) => noteOn(peer, 'has no address of a family that this machine has, too'));
}

function noteOn(peer: TailnetNode, reason: string): Note {
  return { subject: quoteName(peerName(peer)), reason };
}

function isStopped(error: unknown): boolean {
  return error instanceof LocalApiError && error.kind === 'stopped';
}

import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { LocalApi } from '../tailscale/types.ts';
import type { Watcher } from '../watch/contract.ts';
import type { AdmissionRules, Role } from './access/admission.ts';
import { Callers } from './access/callers.ts';
import { Connections } from './proxy/connections.ts';
import { Gate } from './access/gate.ts';
import { ListFeed } from './list/list-feed.ts';
import { Listener, type ListenerLimits } from './listener.ts';
import { type Listing, listingOf } from './list/listing.ts';
import type { LoopbackPeerDeps } from './access/loopback-peer.ts';
import { NodePage, type NodePageDeps } from './node-page.ts';
import type { OwnInstances } from './list/own-instances.ts';
import { Quota } from '../http/quota.ts';
import { type StatesListing, withStates } from './list/states.ts';
import { ReadSessions } from './proxy/read-sessions.ts';
import { RequestLog } from './proxy/request-log.ts';
import { type Tailnet, TailnetView } from './tailnet-view.ts';

export interface NodeServiceDeps {
  readonly api: LocalApi;
  readonly instances: OwnInstances;
  /** Watches the same instances. The caller starts and closes it. */
  readonly watcher: Watcher;
  readonly page: Omit<NodePageDeps, 'clock' | 'logger'>;
  readonly port: number;
  readonly rules: AdmissionRules;
  /** This machine's host name. */
  readonly host: string;
  readonly loopbackPeer: LoopbackPeerDeps;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits?: ListenerLimits;
  readonly maxConnections?: number;
  readonly maxRequestsPerCaller?: number;
}

/**
 * Concurrent requests per machine, upgraded sockets included: far more than an MCP server and several `opencode attach` need, and
 * a quarter of MAX_CONNECTIONS, so that one machine cannot starve the others.
 */
const MAX_REQUESTS_PER_CALLER = 100;

/** `opencode-mcp node`: this user's instances, listed and proxied on the machine's tailnet addresses. */
export class NodeService {
  readonly #deps: NodeServiceDeps;
  readonly #view: TailnetView;
  readonly #listener: Listener;
  readonly #connections: Connections;
  readonly #feed: ListFeed;
  readonly #states: Readonly<Record<Role, ListFeed>>;
  readonly #unwatch: () => void;
  readonly #page: NodePage;

  constructor(deps: NodeServiceDeps) {
    this.#deps = deps;
    const { api, clock, logger, rules, loopbackPeer, instances, port, limits } = deps;
    this.#connections = new Connections(deps.maxConnections);
    this.#view = new TailnetView({ api, clock, logger, onChange: (tailnet) => this.#follow(tailnet) });
    this.#feed = new ListFeed({ clock, read: () => this.#list() });
    this.#states = {
      drive: new ListFeed({ clock, read: () => this.#statesFor('drive') }),
      read: new ListFeed({ clock, read: () => this.#statesFor('read') }),
    };
    instances.onChange(() => this.#touch());
    this.#unwatch = deps.watcher.onChange(() => this.#touchStates());
    this.#page = new NodePage({ ...deps.page, clock, logger });
    const gate = new Gate({
      tailnet: () => this.#view.current,
      callers: new Callers({ api, view: this.#view, rules, loopbackPeer, clock }),
      sessions: new ReadSessions(),
      connections: this.#connections,
      quota: new Quota(deps.maxRequestsPerCaller ?? MAX_REQUESTS_PER_CALLER),
      instances,
      feed: this.#feed,
      states: this.#states,
      page: this.#page,
      clock,
      log: new RequestLog(logger),
    });
    const connections = this.#connections;
    this.#listener = new Listener({ port, gate, connections, clock, logger, ...(limits && { limits }) });
  }

  /** The addresses it listens on now. */
  get addresses(): readonly string[] {
    return this.#listener.addresses;
  }

  /** Where other machines of the tailnet reach it; undefined while this machine is in no tailnet. */
  get url(): string | undefined {
    const self = this.#view.current?.self;
    const [address = ''] = self?.addresses ?? [];
    const host = self?.dnsName || (address.includes(':') ? `[${address}]` : address);
    return host && `http://${host}:${this.#deps.port}`;
  }

  get connections(): number {
    return this.#connections.count;
  }

  /** Held requests for the list or the states. */
  get waiting(): number {
    return [this.#feed, ...Object.values(this.#states)].reduce((sum, { waiting }) => sum + waiting, 0);
  }

  /** Starts to follow tailscaled and the registry, in the background. */
  start(): void {
    this.#deps.instances.start();
    this.#view.start();
  }

  /** Cuts every connection. */
  async close(): Promise<void> {
    this.#listener.close();
    this.#unwatch();
    const feeds = [this.#feed, ...Object.values(this.#states)];
    await Promise.all([
      ...feeds.map((feed) => feed.close()),
      this.#view.close(),
      this.#page.close(),
      this.#deps.instances.close(),
    ]);
  }

  #follow(tailnet: Tailnet | undefined): void {
    this.#listener.follow(tailnet);
    this.#touch();
  }

  #touch(): void {
    this.#feed.touch();
    this.#touchStates();
  }

  #touchStates(): void {
    for (const feed of Object.values(this.#states)) feed.touch();
  }

  async #list(): Promise<Listing | undefined> {
    const self = this.#view.current?.self;
    if (self === undefined) return undefined;
    const node = { id: self.id, name: self.dnsName === '' ? self.hostName : self.dnsName, host: this.#deps.host };
    return listingOf(node, await this.#deps.instances.list());
  }

  async #statesFor(role: Role): Promise<StatesListing | undefined> {
    const listing = await this.#list();
    const { watcher, clock } = this.#deps;
    return listing && withStates(listing, watcher.servers(), { role, nowMs: clock.monotonic() });
  }
}

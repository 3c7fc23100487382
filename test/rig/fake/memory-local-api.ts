import { ChangeNotifier } from '../../../src/base/change-notifier.ts';
import type { LocalApi, TailnetNode, TailnetStatus, Whois } from '../../../src/tailscale/types.ts';

/** A machine of the tailnet with default values. */
export function tailnetNode(fields: Partial<TailnetNode> & Pick<TailnetNode, 'id'>): TailnetNode {
  return {
    hostName: fields.id,
    dnsName: `${fields.id}.tail0.ts.net`,
    os: 'linux',
    userId: 'user-ada',
    addresses: [],
    tags: [],
    online: true,
    expired: false,
    shared: false,
    exitNodeForHire: false,
    ...fields,
  };
}

/** The whois answer for that machine. */
export function whoisOf(
  node: TailnetNode,
  login = 'ada@example.com',
  capabilities: Readonly<Record<string, readonly unknown[]>> = {},
): Whois {
  const { id, dnsName, tags, userId } = node;
  return {
    node: { id, dnsName, tags, userId },
    login: tags.length > 0 ? 'tagged-devices' : login,
    userId: tags.length > 0 ? 'tagged-devices' : userId,
    capabilities: new Map(Object.entries(capabilities)),
  };
}

/** A LocalAPI in memory, with answers set by the test, for behaviour that a real daemon does not show on command. */
export class MemoryLocalApi implements LocalApi {
  status_: TailnetStatus;
  /** Whois answers by IP address; a function is called for each whois request. */
  readonly callers = new Map<string, Whois | (() => Promise<Whois | undefined>)>();
  /** `ip:port` of every whois request, in order. */
  readonly asked: string[] = [];
  /** The number of times the status was read. */
  looks = 0;
  failure: Error | undefined;
  readonly #watchers = new Set<ChangeNotifier>();

  constructor(self: TailnetNode, { tun = true } = {}) {
    this.status_ = {
      version: '1.98.10',
      backendState: 'Running',
      tun,
      self,
      peers: [],
      logins: new Map(),
    };
  }

  /** Adds a node to the status, and to whois at its addresses. */
  join(node: TailnetNode, whois: Whois = whoisOf(node)): void {
    this.set({ peers: [...this.status_.peers.filter(({ id }) => id !== node.id), node] });
    for (const address of node.addresses) this.callers.set(address, whois);
  }

  /** Changes the status and notifies the bus. */
  set(fields: Partial<TailnetStatus>): void {
    this.status_ = { ...this.status_, ...fields };
    this.notify();
  }

  fail(failure: Error | undefined): void {
    this.failure = failure;
    this.notify();
  }

  notify(): void {
    for (const watcher of this.#watchers) watcher.notify();
  }

  status(): Promise<TailnetStatus> {
    this.looks += 1;
    return this.failure === undefined ? Promise.resolve(this.status_) : Promise.reject(this.failure);
  }

  async whois(address: string): Promise<Whois | undefined> {
    this.asked.push(address);
    if (this.failure !== undefined) throw this.failure;
    const known =
      this.callers.get(address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')) ?? this.callers.get(address);
    return typeof known === 'function' ? known() : known;
  }

  watch(signal: AbortSignal): AsyncIterable<void> {
    const notifier = new ChangeNotifier(signal);
    notifier.ended.addEventListener('abort', () => this.#watchers.delete(notifier));
    this.#watchers.add(notifier);
    notifier.notify();
    return notifier;
  }

  dial(): Promise<never> {
    return Promise.reject(new Error('nothing here dials'));
  }
}

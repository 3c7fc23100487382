import { LiveFleet, type FleetDeps } from '../../src/fleet/fleet.ts';
import type { Instance } from '../../src/model/instance.ts';
import { HINT_WINDOW_MS } from '../../src/discovery/chain.ts';
import { ChangeNotifier } from '../../src/base/change-notifier.ts';
import type { Candidate } from '../../src/model/candidate.ts';
import type { DiscoverySource, Scan } from '../../src/discovery/source.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { until } from '../rig/wait.ts';
import { candidate } from './candidates.ts';
import { ManualClock, settle } from './manual-clock.ts';

export const INTERVAL_MS = 3_600_000;
/** The transport counts in real time; a first probe gets a quarter of this, longer than any test takes. */
export const DEADLINE_MS = 600_000;

type Registered = Parameters<typeof candidate>[0];

/** A source whose candidates a test sets; `announce` has them scanned. */
export class TestSource implements DiscoverySource {
  readonly name = 'test';
  readonly candidates = new Map<string, Candidate>();
  /** Replaces the result of a scan. */
  answer: (() => Promise<Scan>) | undefined;
  scans = 0;
  readonly #notifiers: ChangeNotifier[] = [];

  async scan(signal: AbortSignal): Promise<Scan> {
    this.scans += 1;
    signal.throwIfAborted();
    return this.answer?.() ?? { candidates: [...this.candidates.values()], notes: [] };
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    const notifier = new ChangeNotifier();
    signal.addEventListener('abort', () => notifier.end(), { once: true });
    this.#notifiers.push(notifier);
    return notifier;
  }

  notify(): void {
    for (const notifier of this.#notifiers) notifier.notify();
  }
}

/** A fleet on a manual clock, over fakes on real sockets. */
export class World implements AsyncDisposable {
  readonly clock = new ManualClock();
  readonly source = new TestSource();
  readonly fleet: LiveFleet;
  readonly #closers: Array<() => Promise<unknown>> = [];

  constructor(
    options: { readonly slots?: number } & Partial<
      Pick<FleetDeps, 'resolveCredential' | 'onChange' | 'onPresence'>
    > = {},
  ) {
    const { slots = 8, ...deps } = options;
    this.fleet = new LiveFleet({
      settings: { discoveryIntervalMs: INTERVAL_MS, healthCheckTimeoutMs: DEADLINE_MS, healthConcurrency: slots },
      sources: [this.source],
      resolveCredential: async () => undefined,
      clock: this.clock,
      logger: silentLogger,
      ...deps,
    });
  }

  async fake(options?: FakeOptions): Promise<FakeOpencode> {
    const fake = await startFakeOpencode(options);
    this.#closers.push(fake.close);
    return fake;
  }

  async tunnelTo(fake: FakeOpencode): Promise<FaultProxy> {
    const proxy = await startFaultProxy(fake.url);
    this.#closers.push(proxy.close);
    return proxy;
  }

  /** Registers an address under `key`; the name is the key unless claimed otherwise. The next scan finds it. */
  register(key: string, { url }: { readonly url: string }, fields: Registered = {}): void {
    const { claims, ...rest } = fields;
    this.source.candidates.set(
      key,
      candidate({ key, url, claims: { name: key, hostname: 'box', ...claims }, ...rest }),
    );
  }

  /** Notifies of a change, and waits for the scan that follows. */
  async announce(): Promise<void> {
    this.source.notify();
    await this.clock.advance(HINT_WINDOW_MS);
  }

  /** Starts the fleet, and waits until it has probed every registered address. */
  async start(): Promise<void> {
    this.fleet.start();
    await settle();
    await this.quiet();
  }

  /** Starts the fleet with one instance, registered as `key`. */
  async startWith(key: string, options?: FakeOptions, fields?: Registered): Promise<FakeOpencode> {
    const fake = await this.fake(options);
    this.register(key, fake, fields);
    await this.start();
    return fake;
  }

  /** Starts the fleet with two endpoints of one process: a preferred one behind a proxy, and a direct one with the route `relay`. */
  async startWithTwoEndpoints() {
    const fake = await this.fake({ directory: '/home/user/a' });
    const proxy = await this.tunnelTo(fake);
    this.register('a', proxy, { claims: { id: 'x' } });
    this.register('r', fake, { route: 'relay', claims: { id: 'x', name: 'a' } });
    this.fleet.start();
    await this.fleet.ready();
    return { fake, proxy, instance: this.instance('a') };
  }

  /** Registers an address, announces it and waits until it is probed. */
  async add(key: string, fake: { readonly url: string }, fields: Registered = {}): Promise<void> {
    this.register(key, fake, fields);
    await this.announce();
    await this.quiet();
  }

  /** Runs one scheduled round, and waits until all its probes have ended. */
  async round(): Promise<void> {
    await this.clock.advance(INTERVAL_MS);
    await this.quiet();
  }

  /** Waits until no probe runs and the last answers have been handled. */
  async quiet(): Promise<void> {
    await settle();
    await until('all probes to end', () => this.fleet.counters.inFlight === 0);
    await settle();
  }

  /** `name state` of every instance, sorted by name. */
  listed(): string[] {
    return this.fleet.snapshot().instances.map(({ name, state }) => `${name} ${state}`);
  }

  instance(name: string): Instance {
    const found = this.fleet.snapshot().instances.find((instance) => instance.name === name);
    if (found === undefined) throw new Error(`${name} is not among ${this.listed().join(', ')}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fleet.close();
    await Promise.all(this.#closers.map((close) => close()));
  }
}

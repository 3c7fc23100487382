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
  /** Replaces what a scan does. */
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

  /** Registers an address under `key`; the name is the key unless claimed otherwise. Seen by the next scan. */
  register(key: string, { url }: { readonly url: string }, fields: Registered = {}): void {
    const { claims, ...rest } = fields;
    this.source.candidates.set(
      key,
      candidate({ key, url, claims: { name: key, hostname: 'box', ...claims }, ...rest }),
    );
  }

  /** Hints a change and lets the scan happen. */
  async announce(): Promise<void> {
    this.source.notify();
    await this.clock.advance(HINT_WINDOW_MS);
  }

  /** Starts, and waits until everything registered was probed. */
  async start(): Promise<void> {
    this.fleet.start();
    await settle();
    await this.quiet();
  }

  /** Starts with one instance of that name. */
  async startWith(key: string, options?: FakeOptions, fields?: Registered): Promise<FakeOpencode> {
    const fake = await this.fake(options);
    this.register(key, fake, fields);
    await this.start();
    return fake;
  }

  /** Starts with one process: a better endpoint through a proxy, and a worse, direct one. */
  async startWithTwoEndpoints() {
    const fake = await this.fake({ directory: '/home/user/a' });
    const proxy = await this.tunnelTo(fake);
    this.register('a', proxy, { claims: { id: 'x' } });
    this.register('r', fake, { route: 'relay', claims: { id: 'x', name: 'a' } });
    this.fleet.start();
    await this.fleet.ready();
    return { fake, proxy, instance: this.instance('a') };
  }

  /** Registers, announces and waits for the answer. */
  async add(key: string, fake: { readonly url: string }, fields: Registered = {}): Promise<void> {
    this.register(key, fake, fields);
    await this.announce();
    await this.quiet();
  }

  /** One scheduled round, until all of its probes have ended. */
  async round(): Promise<void> {
    await this.clock.advance(INTERVAL_MS);
    await this.quiet();
  }

  /** No probe runs, and the consequences of the last answers have happened. */
  async quiet(): Promise<void> {
    await settle();
    await until('all probes to end', () => this.fleet.counters.inFlight === 0);
    await settle();
  }

  /** `name state`, sorted by name. */
  listed(): string[] {
    return this.fleet.snapshot().instances.map(({ name, state }) => `${name} ${state}`);
  }

  instance(name: string): Instance {
    const found = this.fleet.snapshot().instances.find((one) => one.name === name);
    if (found === undefined) throw new Error(`${name} is not among ${this.listed().join(', ')}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fleet.close();
    await Promise.all(this.#closers.map((close) => close()));
  }
}

import { LiveDirectory, type DirectoryDeps } from '../../src/fleet/fleet.ts';
import type { Instance } from '../../src/model/instance.ts';
import { HINT_WINDOW_MS } from '../../src/discovery/chain.ts';
import { Pulse } from '../../src/base/change-notifier.ts';
import type { Candidate, DiscoverySource, Scan } from '../../src/discovery/source.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/fault-proxy.ts';
import { until } from '../rig/wait.ts';
import { candidate } from './candidates.ts';
import { ManualClock, settle } from './manual-clock.ts';

export const INTERVAL_MS = 3_600_000;
/** The transport counts in real time: a quarter of this, a first look, is longer than any test may take. */
export const DEADLINE_MS = 600_000;

type Registered = Parameters<typeof candidate>[0];

/** What a test's source reports: changed at will, told by `announce`. */
export class TestSource implements DiscoverySource {
  readonly name = 'test';
  readonly candidates = new Map<string, Candidate>();
  /** Replaces what a scan does. */
  answer: (() => Promise<Scan>) | undefined;
  scans = 0;
  readonly #pulses: Pulse[] = [];

  async scan(signal: AbortSignal): Promise<Scan> {
    this.scans += 1;
    signal.throwIfAborted();
    return this.answer?.() ?? { candidates: [...this.candidates.values()], notes: [] };
  }

  changes(signal: AbortSignal): AsyncIterable<void> {
    const pulse = new Pulse();
    signal.addEventListener('abort', () => pulse.end(), { once: true });
    this.#pulses.push(pulse);
    return pulse;
  }

  notify(): void {
    for (const pulse of this.#pulses) pulse.notify();
  }
}

/** A directory on a manual clock, over fakes on real sockets. */
export class World implements AsyncDisposable {
  readonly clock = new ManualClock();
  readonly source = new TestSource();
  readonly directory: LiveDirectory;
  readonly #closers: Array<() => Promise<unknown>> = [];

  constructor(
    options: { readonly slots?: number } & Partial<
      Pick<DirectoryDeps, 'resolveCredential' | 'onChange' | 'onPresence'>
    > = {},
  ) {
    const { slots = 8, ...deps } = options;
    this.directory = new LiveDirectory({
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

  /** Tells of a change and lets the scan that follows happen. */
  async announce(): Promise<void> {
    this.source.notify();
    await this.clock.advance(HINT_WINDOW_MS);
  }

  /** Starts, and waits until everything registered was asked. */
  async start(): Promise<void> {
    this.directory.start();
    await settle();
    await this.quiet();
  }

  /** Registers, announces and waits for the answer. */
  async add(key: string, fake: { readonly url: string }, fields: Registered = {}): Promise<void> {
    this.register(key, fake, fields);
    await this.announce();
    await this.quiet();
  }

  /** One scheduled round, until all it asks has answered. */
  async round(): Promise<void> {
    await this.clock.advance(INTERVAL_MS);
    await this.quiet();
  }

  /** No probe is in work, and what follows from the last answers has happened. */
  async quiet(): Promise<void> {
    await settle();
    await until('all probes to end', () => this.directory.counters.inFlight === 0);
    await settle();
  }

  /** `name state`, sorted by name. */
  listed(): string[] {
    return this.directory.snapshot().instances.map(({ name, state }) => `${name} ${state}`);
  }

  instance(name: string): Instance {
    const found = this.directory.snapshot().instances.find((one) => one.name === name);
    if (found === undefined) throw new Error(`${name} is not among ${this.listed().join(', ')}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.directory.close();
    await Promise.all(this.#closers.map((close) => close()));
  }
}

import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';

import type { Clock } from '../base/clock.ts';
import type { Candidate, Endpoint } from '../model/candidate.ts';
import type { Connection, Credential } from '../http/exchange.ts';
import type { OverviewPart } from '../model/instance.ts';
import type { ReportedOverview } from '../model/report.ts';
import { type Rank, ProbeQueue } from './probe-queue.ts';
import type { OtherDirectory, OverviewParts } from './overview.ts';
import { PasswordReader } from './password-reader.ts';
import { probe } from './probe.ts';
import { usableReport } from './report.ts';
import type { Healthy, Look } from './probe-task.ts';
import type { SameDirectory } from './same-directory.ts';

/** An endpoint to look at, by identity: one object as long as its registration stays what it is. */
export interface ProbeTarget {
  readonly candidate: Candidate;
  /** How its last probe ended. */
  readonly standing: 'known' | 'fresh' | 'suspect';
  /** What the last probes learnt of what it does in its own directory. */
  readonly learnt?: OverviewParts | undefined;
  /** What it is, while it is healthy. */
  readonly identity?: Healthy | undefined;
  /** What a request to it needs, as its last look had it. */
  readonly connection?: Connection;
}

/** What a probe found, and what a request to the endpoint needs. */
export interface ProbeOutcome extends Look {
  readonly connection: Connection;
  /** What it does, as its watcher says: nothing was asked. */
  readonly reported?: readonly ReportedOverview[];
  /** Probes are numbered as they begin, so that a late answer cannot displace a newer one. */
  readonly sequence: number;
}

export interface LookOptions {
  readonly parts: readonly OverviewPart[];
  /** A version that an earlier look found is good enough. */
  readonly trustsVersion?: boolean;
  /** Only these directories are asked about, of a server that answered just now: who it is, is not asked again. */
  readonly elsewhere?: readonly OtherDirectory[];
  /** For a tool that waits for this one: before everything that waits, and one look only; a second is asked for by `recheck`. */
  readonly urgent?: 'look' | 'recheck';
}

/** Looks that end together. */
export interface Batch<T extends ProbeTarget> {
  /**
   * Undefined where the batch ended first. Never rejects. Where the watcher of a server says what it does, that is the outcome, and
   * nothing is asked, but for a tool that is about to drive it and of other directories, which go into requests.
   */
  look(target: T, options: LookOptions): Promise<ProbeOutcome | undefined>;
  /** Lets go of what has not answered: what waits is dropped unless another batch wants it, what runs goes on to its own deadline. */
  end(): void;
}

export interface ProbeCounters {
  probes: number;
  inFlight: number;
  maxInFlight: number;
  requests: number;
}

export interface ProberDeps<T extends ProbeTarget> {
  readonly clock: Clock;
  readonly slots: number;
  /** The health deadline. */
  readonly deadlineMs: number;
  readonly sameDirectory: SameDirectory;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  readonly withHeaders?: ((endpoint: Endpoint, signal: AbortSignal) => Promise<Endpoint>) | undefined;
  /** For every probe that is settled; one that ran out of time and will be repeated is not. */
  readonly onOutcome: (target: T, outcome: ProbeOutcome) => void;
}

/**
 * The first look is short, so that what hangs frees its slot soon. What only ran out of time is looked at again, among
 * the suspects: opencode accepts requests in its first 450 ms that it never answers. The eighth that is left
 * is for waiting, so that the verdict is there when a survey ends.
 */
const FIRST_LOOK = 1 / 4;
const SECOND_LOOK = 5 / 8;

/** A vault may be slow; this holds no slot, but what asks for a password is of no use without it. */
const CREDENTIAL_WAIT = 1 / 2;

/** Abort reasons of our own: without one, each abort makes an exception with a stack, which 10,000 probes feel. */
const DONE = 'done';
const LATE = 'late';
const CLOSED = 'closed';

interface Job<T extends ProbeTarget> {
  readonly target: T;
  readonly urgent: LookOptions['urgent'];
  readonly elsewhere: LookOptions['elsewhere'];
  parts: readonly OverviewPart[];
  trustsVersion: boolean;
  pass: 1 | 2;
  running: boolean;
  dropped: boolean;
  /** Called once with what was found. */
  readonly waiters: Set<(outcome: ProbeOutcome | undefined) => void>;
  connection: Connection;
  credentialProblem?: string | undefined;
  lock?: string | undefined;
  /** The first look found who is there, but not all of what it is doing. */
  firstLook?: Look;
}

/** Schedules every probe of the process on one limiter. */
export class Prober<T extends ProbeTarget> {
  readonly counters: ProbeCounters = { probes: 0, inFlight: 0, maxInFlight: 0, requests: 0 };
  readonly #deps: ProberDeps<T>;
  readonly #limit: ReturnType<typeof pLimit>;
  readonly #passwords: PasswordReader;
  readonly #queue: ProbeQueue<Job<T>>;
  /** Jobs that another batch may join. */
  readonly #joinable = new Map<T, Job<T>>();
  readonly #jobs = new Set<Job<T>>();
  readonly #running = new Set<AbortController>();
  /** Their first look ran out of time, and no later one has answered yet. */
  readonly #slow = new WeakSet<T>();
  #sequence = 0;
  #closed = false;

  constructor(deps: ProberDeps<T>) {
    this.#deps = deps;
    const { clock, deadlineMs, resolveCredential, withHeaders } = deps;
    const limitMs = deadlineMs * CREDENTIAL_WAIT;
    this.#passwords = new PasswordReader({ clock, limitMs, resolveCredential, withHeaders });
    this.#limit = pLimit(deps.slots);
    this.#queue = new ProbeQueue(deps.slots);
  }

  /** Of the probe that began last. */
  get sequence(): number {
    return this.#sequence;
  }

  batch(): Batch<T> {
    const open = new Map<(outcome: ProbeOutcome | undefined) => void, Job<T>>();
    let ended = this.#closed;
    const ask: Batch<T>['look'] = (target, options) =>
      new Promise((resolve) => {
        if (ended || this.#closed) {
          resolve(undefined);
          return;
        }
        const job = this.#join(target, options) ?? this.#submit(target, options);
        const waiter = (outcome: ProbeOutcome | undefined): void => {
          open.delete(waiter);
          resolve(outcome);
        };
        job.waiters.add(waiter);
        open.set(waiter, job);
      });
    return {
      look: (target, options) =>
        options.urgent !== undefined || options.elsewhere !== undefined || usableReport(target.candidate) === undefined
          ? ask(target, options)
          : this.#takeReport(target).then((outcome) => outcome ?? ask(target, options)),
      end: () => {
        ended = true;
        for (const [waiter, job] of open) {
          job.waiters.delete(waiter);
          if (job.waiters.size === 0 && !job.running) this.#drop(job);
          waiter(undefined);
        }
      },
    };
  }

  /** Its registration is gone: what waits for it is dropped, what runs is nobody's business any more. */
  forget(target: T): void {
    const job = this.#joinable.get(target);
    if (job !== undefined && !job.running) this.#drop(job);
  }

  /** Ends every request; open looks resolve with undefined. */
  close(): void {
    this.#closed = true;
    this.#passwords.close();
    for (const controller of this.#running) controller.abort(CLOSED);
    for (const job of this.#jobs) this.#drop(job);
  }

  /** Undefined where there is none any more. */
  async #takeReport(target: T): Promise<ProbeOutcome | undefined> {
    let { connection } = target;
    if (connection === undefined) {
      const found = await this.#passwords.find(target.candidate, false);
      if (found.lock !== undefined) return undefined;
      connection = connectionOf(target, found);
    }
    const report = usableReport(target.candidate);
    if (report === undefined || this.#closed) return undefined;
    const outcome: ProbeOutcome = {
      result: report.result,
      reported: report.overviews,
      learnt: {},
      missing: [],
      timedOut: false,
      connection,
      sequence: (this.#sequence += 1),
    };
    this.#slow.delete(target);
    this.#deps.onOutcome(target, outcome);
    return outcome;
  }

  /** A job under way that will tell what is asked, or can still be made to. */
  #join(target: T, { parts, trustsVersion = false, urgent, elsewhere }: LookOptions): Job<T> | undefined {
    if (urgent !== undefined || elsewhere !== undefined) return undefined;
    const job = this.#joinable.get(target);
    if (job === undefined) return undefined;
    const fits = parts.every((part) => job.parts.includes(part)) && (trustsVersion || !job.trustsVersion);
    if (fits) return job;
    if (job.running || job.pass === 2) return undefined;
    job.parts = [...new Set([...job.parts, ...parts])];
    job.trustsVersion &&= trustsVersion;
    return job;
  }

  #submit(target: T, { parts, trustsVersion = false, urgent, elsewhere }: LookOptions): Job<T> {
    const job: Job<T> = {
      target,
      urgent,
      elsewhere,
      parts,
      trustsVersion,
      pass: urgent === 'recheck' || elsewhere !== undefined ? 2 : 1,
      running: false,
      dropped: false,
      waiters: new Set(),
      connection: { endpoint: target.candidate.endpoint },
    };
    this.#jobs.add(job);
    if (urgent === undefined && elsewhere === undefined) this.#joinable.set(target, job);
    void this.#prepare(job);
    return job;
  }

  /** Finds the password, and headers that are secrets, before a slot is taken. */
  async #prepare(job: Job<T>): Promise<void> {
    const found = await this.#passwords.find(job.target.candidate, job.urgent !== undefined);
    job.connection = connectionOf(job.target, found);
    job.credentialProblem = found.problem;
    job.lock = found.lock;
    if (!job.dropped) this.#enqueue(job, this.#firstRank(job));
  }

  #firstRank({ urgent, target }: Job<T>): Rank {
    if (urgent !== undefined) return urgent === 'recheck' ? 'recheck' : 'urgent';
    return this.#slow.has(target) ? 'suspect' : target.standing;
  }

  #enqueue(job: Job<T>, rank: Rank): void {
    this.#queue.push(rank, job);
    void this.#limit(() => this.#runNext());
  }

  /** Takes one slot for the job that is most urgent now, not for the one that asked for the slot. */
  async #runNext(): Promise<void> {
    const next = this.#queue.pick();
    // Suspects wait until one of them leaves its slot.
    if (next === undefined) return;
    await this.#run(next.job);
    if (this.#queue.done(next.rank)) void this.#limit(() => this.#runNext());
  }

  async #run(job: Job<T>): Promise<void> {
    const { clock, deadlineMs, sameDirectory, onOutcome } = this.#deps;
    const { counters } = this;
    const firstMs = Math.max(1, Math.round(deadlineMs * FIRST_LOOK));
    const limitMs = job.pass === 1 ? firstMs : Math.max(1, Math.round(deadlineMs * SECOND_LOOK));
    const known = job.elsewhere === undefined ? job.firstLook?.result : job.target.identity;
    const sequence = (this.#sequence += 1);
    const controller = new AbortController();
    // Each request listens; those about many directories or sessions are more than Node's limit for a warning.
    setMaxListeners(0, controller.signal);
    job.running = true;
    this.#running.add(controller);
    counters.probes += 1;
    counters.inFlight += 1;
    counters.maxInFlight = Math.max(counters.maxInFlight, counters.inFlight);
    void clock.sleep(limitMs, controller.signal).then(() => {
      // What arrived while this process was busy counts: sockets are read before this runs.
      if (!controller.signal.aborted) setImmediate(() => controller.abort(LATE));
    });
    const look = await probe(
      {
        candidate: job.target.candidate,
        connection: job.connection,
        parts: job.firstLook?.result.status === 'healthy' ? job.firstLook.missing : job.parts,
        elsewhere: job.elsewhere,
        known: job.target.learnt,
        before: job.target.identity,
        ...(job.trustsVersion ? { version: job.target.identity?.version } : {}),
        ...(known?.status === 'healthy' ? { identity: known } : {}),
        limitMs,
        ...(job.pass === 2 ? { waitedMs: firstMs } : {}),
        signal: controller.signal,
        credentialProblem: job.credentialProblem,
        lock: job.lock,
      },
      {
        clock,
        sameDirectory,
        onRequest: () => {
          counters.requests += 1;
        },
      },
    );
    this.#running.delete(controller);
    controller.abort(DONE);
    counters.inFlight -= 1;
    job.running = false;
    if (this.#closed) return;
    this.#settle(job, look, sequence, onOutcome);
  }

  #settle(job: Job<T>, look: Look, sequence: number, onOutcome: ProberDeps<T>['onOutcome']): void {
    const { target, connection } = job;
    const outcome: ProbeOutcome = { ...look, connection, sequence };
    const repeat = look.timedOut && job.pass === 1;
    if (look.result.status !== 'unhealthy') this.#slow.delete(target);
    else if (look.timedOut) this.#slow.add(target);
    // The identity is reported at once, even if questions about its work are still open.
    if (!repeat || look.result.status === 'healthy') onOutcome(target, outcome);
    if (repeat && job.urgent === undefined && job.waiters.size > 0) {
      job.pass = 2;
      job.firstLook = look;
      this.#enqueue(job, 'again');
      return;
    }
    this.#finish(job, outcome);
  }

  #finish(job: Job<T>, outcome: ProbeOutcome | undefined): void {
    this.#jobs.delete(job);
    if (this.#joinable.get(job.target) === job) this.#joinable.delete(job.target);
    for (const waiter of job.waiters) waiter(outcome);
    job.waiters.clear();
  }

  #drop(job: Job<T>): void {
    job.dropped = true;
    this.#finish(job, undefined);
  }
}

function connectionOf(
  { candidate }: ProbeTarget,
  {
    endpoint = candidate.endpoint,
    credential,
  }: { readonly endpoint?: Endpoint | undefined; readonly credential?: Credential | undefined },
): Connection {
  return { endpoint, ...(credential !== undefined && { credential }) };
}

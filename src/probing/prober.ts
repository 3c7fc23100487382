import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';

import type { Clock } from '../base/clock.ts';
import type { Candidate, Endpoint } from '../model/candidate.ts';
import type { Connection, Credential } from '../http/exchange.ts';
import type { OverviewPart } from '../model/instance.ts';
import type { Report, ReportedOverview } from '../model/report.ts';
import { type Rank, ProbeQueue } from './probe-queue.ts';
import type { OtherDirectory, OverviewParts } from './overview.ts';
import { type PasswordAnswer, PasswordReader } from './password-reader.ts';
import { probe } from './probe.ts';
import { usableReport } from './report.ts';
import type { Healthy, Look } from './probe-task.ts';
import type { SameDirectory } from './same-directory.ts';

/** An endpoint to probe: the same object until its registration changes. */
export interface ProbeTarget {
  readonly candidate: Candidate;
  /** By the result of its last probe. */
  readonly standing: 'known' | 'fresh' | 'suspect';
  /** What earlier probes learnt about its own directory. */
  readonly learnt?: OverviewParts | undefined;
  /** Absent unless it is healthy. */
  readonly identity?: Healthy | undefined;
  /** From its last probe. */
  readonly connection?: Connection;
}

export interface ProbeOutcome extends Look {
  readonly connection: Connection;
  /** From its watcher; nothing was asked. */
  readonly reported?: readonly ReportedOverview[];
  /** Counts probes as they begin, so that a late answer cannot replace a newer one. */
  readonly sequence: number;
}

export interface LookOptions {
  readonly parts: readonly OverviewPart[];
  /** Use the version from an earlier probe. */
  readonly trustsVersion?: boolean;
  /** Ask only about these directories, of a server that was identified just now. */
  readonly elsewhere?: readonly OtherDirectory[];
  /** A tool waits for the answer: goes first, and is not repeated. `recheck`: the tool's own second look. */
  readonly urgent?: 'look' | 'recheck';
}

/** Looks that are given up together. */
export interface Batch<T extends ProbeTarget> {
  /**
   * Resolves to undefined if the batch ends first; never rejects. Uses the report of the server's watcher instead of requests, except if
   * a tool is about to drive the server (`urgent`), or for other directories: requests may name those only if the server itself did.
   */
  look(target: T, options: LookOptions): Promise<ProbeOutcome | undefined>;
  /** Drops waiting looks, unless another batch wants them. Running ones go on to their deadline. */
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
  /** HEALTH_CHECK_TIMEOUT_MS. */
  readonly deadlineMs: number;
  readonly sameDirectory: SameDirectory;
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  readonly withHeaders?: ((endpoint: Endpoint, signal: AbortSignal) => Promise<Endpoint>) | undefined;
  /** Not called for an unhealthy look that ran out of time and will be repeated. */
  readonly onOutcome: (target: T, outcome: ProbeOutcome) => void;
}

/**
 * Shares of the deadline. The first look is short, so that a hung server frees its slot soon. A look that ran out of time is
 * repeated among the suspects: opencode accepts requests in its first 450 ms that it never answers. The remaining eighth is for
 * waiting, so that the second look ends before a survey does.
 */
const FIRST_LOOK = 1 / 4;
const SECOND_LOOK = 5 / 8;

/** Share of the deadline. A vault may be slow, but waiting for it holds no slot, and without the password the probe would be useless. */
const CREDENTIAL_WAIT = 1 / 2;

/** Reasons for `abort`. Without one, each abort creates an exception with a stack, which is slow for 10,000 probes. */
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
  /** Each is called once with the outcome. */
  readonly waiters: Set<(outcome: ProbeOutcome | undefined) => void>;
  password: PasswordAnswer;
  /** Found the identity, but ran out of time for some parts. */
  firstLook?: Look;
}

/** Schedules all probes of this process on one limiter. */
export class Prober<T extends ProbeTarget> {
  readonly counters: ProbeCounters = { probes: 0, inFlight: 0, maxInFlight: 0, requests: 0 };
  readonly #deps: ProberDeps<T>;
  readonly #limit: ReturnType<typeof pLimit>;
  readonly #passwords: PasswordReader;
  /** The report that a failed probe contradicts. */
  readonly #refuted = new WeakMap<T, Report | undefined>();
  readonly #queue: ProbeQueue<Job<T>>;
  /** Jobs that another batch may join. */
  readonly #joinable = new Map<T, Job<T>>();
  readonly #jobs = new Set<Job<T>>();
  readonly #running = new Set<AbortController>();
  /** Targets whose first look ran out of time, and that have not answered since. */
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

  /** The number of the latest probe. */
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
        options.urgent !== undefined || options.elsewhere !== undefined || this.#report(target) === undefined
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

  /** Drops a waiting look at a registration that is gone. */
  forget(target: T): void {
    const job = this.#joinable.get(target);
    if (job !== undefined && !job.running) this.#drop(job);
  }

  /** Ends every request; open looks resolve to undefined. */
  close(): void {
    this.#closed = true;
    this.#passwords.close();
    for (const controller of this.#running) controller.abort(CLOSED);
    for (const job of this.#jobs) this.#drop(job);
  }

  /** Its report, unless a probe has failed since the report last changed: a machine that is gone still looks watched. */
  #report(target: T): Report | undefined {
    const report = usableReport(target.candidate);
    return report === this.#refuted.get(target) ? undefined : report;
  }

  /** Undefined if there is no current report. */
  async #takeReport(target: T): Promise<ProbeOutcome | undefined> {
    let { connection } = target;
    if (connection === undefined) {
      const found = await this.#passwords.find(target.candidate, false);
      if (found.lock !== undefined) return undefined;
      connection = connectionOf(target, found);
    }
    const report = this.#report(target);
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

  /** An open job that asks for these parts, or can be extended to ask for them. */
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
      password: {},
    };
    this.#jobs.add(job);
    if (urgent === undefined && elsewhere === undefined) this.#joinable.set(target, job);
    void this.#prepare(job);
    return job;
  }

  /** Reads the password and secret headers before taking a slot. */
  async #prepare(job: Job<T>): Promise<void> {
    job.password = await this.#passwords.find(job.target.candidate, job.urgent !== undefined);
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

  /** Runs the most urgent job, which may not be the one that asked for this slot. */
  async #runNext(): Promise<void> {
    const next = this.#queue.pick();
    // Only suspects are waiting, and their share of the slots is taken.
    if (next === undefined) return;
    await this.#run(next.job);
    if (this.#queue.done(next.rank)) void this.#limit(() => this.#runNext());
  }

  async #run(job: Job<T>): Promise<void> {
    const { clock, deadlineMs, sameDirectory } = this.#deps;
    const { counters } = this;
    const firstMs = Math.max(1, Math.round(deadlineMs * FIRST_LOOK));
    const limitMs = job.pass === 1 ? firstMs : Math.max(1, Math.round(deadlineMs * SECOND_LOOK));
    const known = job.elsewhere === undefined ? job.firstLook?.result : job.target.identity;
    const sequence = (this.#sequence += 1);
    const connection = connectionOf(job.target, job.password);
    const controller = new AbortController();
    // Each request adds a listener; many directories exceed Node's limit of 10.
    setMaxListeners(0, controller.signal);
    job.running = true;
    this.#running.add(controller);
    counters.probes += 1;
    counters.inFlight += 1;
    counters.maxInFlight = Math.max(counters.maxInFlight, counters.inFlight);
    void clock.sleep(limitMs, controller.signal).then(() => {
      // Answers that arrived while this process was busy still count: sockets are read before setImmediate runs.
      if (!controller.signal.aborted) setImmediate(() => controller.abort(LATE));
    });
    const look = await probe(
      {
        candidate: job.target.candidate,
        connection,
        parts: job.firstLook?.result.status === 'healthy' ? job.firstLook.missing : job.parts,
        elsewhere: job.elsewhere,
        known: job.target.learnt,
        before: job.target.identity,
        ...(job.trustsVersion ? { version: job.target.identity?.version } : {}),
        ...(known?.status === 'healthy' ? { identity: known } : {}),
        limitMs,
        ...(job.pass === 2 ? { waitedMs: firstMs } : {}),
        signal: controller.signal,
        credentialProblem: job.password.problem,
        lock: job.password.lock,
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
    this.#settle(job, look, { ...look, connection, sequence });
  }

  #settle(job: Job<T>, look: Look, outcome: ProbeOutcome): void {
    const { target } = job;
    const repeat = look.timedOut && job.pass === 1;
    if (look.result.status === 'unhealthy') this.#refuted.set(target, usableReport(target.candidate));
    else this.#refuted.delete(target);
    if (look.result.status !== 'unhealthy') this.#slow.delete(target);
    else if (look.timedOut) this.#slow.add(target);
    // The identity is reported at once, even if parts are still missing.
    if (!repeat || look.result.status === 'healthy') this.#deps.onOutcome(target, outcome);
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
  { endpoint = candidate.endpoint, credential }: PasswordAnswer,
): Connection {
  return { endpoint, ...(credential !== undefined && { credential }) };
}

import type { Connection } from '../http/exchange.ts';
import type { Candidate } from '../model/candidate.ts';
import { endpointKey } from '../model/endpoint-key.ts';
import { OVERVIEW_PARTS, type OverviewPart, type ProbedEndpoint, type ProbeResult } from '../model/instance.ts';
import { type KnownOverview, type OtherDirectory, overviewOfReport, updateOverview } from '../probing/overview.ts';
import type { Healthy } from '../probing/probe-task.ts';
import type { ProbeOutcome, ProbeTarget } from '../probing/prober.ts';
import { OtherDirectories } from './other-directories.ts';

/** Missed rounds after which an endpoint is unlisted: a lost packet or a laptop's nap must not unlist it. */
export const MAX_MISSED_ROUNDS = 5;

/** Rounds in a row that a failed endpoint must answer before it is preferred again, so that a flapping one never is. */
export const STEADY_ROUNDS = 3;

/** The shown latency changes only by this factor: near a step of the preference order, endpoints would swap with every probe. */
const LATENCY_CHANGE = 2;
/** Share of the newest measurement in the running mean. */
const LATENCY_WEIGHT = 0.3;

/** All that is known of one registered endpoint. A changed registration gets a new record. */
export class EndpointRecord implements ProbedEndpoint, ProbeTarget {
  readonly id: string;
  /** See `endpointKey`. */
  readonly key: string;
  candidate: Candidate;
  result: ProbeResult;
  probedAtMs?: number;
  lastSeenMs?: number;
  /** Steadied, see `LATENCY_CHANGE`. */
  latencyMs?: number;
  misses = 0;
  /** How often it stopped being healthy. Each time invalidates the proofs of where it leads. */
  lapses = 0;
  lastHealthy?: Healthy;
  known?: KnownOverview | undefined;
  /** From its last probe. Holds the password: not for snapshots. */
  connection?: Connection;
  readonly directories = new OtherDirectories();
  /** Probes ahead of the schedule since it last answered. */
  retries = 0;
  /** A scheduled round waits for the answer. */
  roundDue = false;
  /** It replaced a listed registration, so it is listed before its first probe. */
  readonly #replaces: boolean;
  #meanLatencyMs: number | undefined;
  /** Rounds it still has to answer before it counts as steady. */
  #probation = 0;
  #sequence = 0;
  #overviewSequence = 0;

  constructor(id: string, candidate: Candidate, replaces = false) {
    this.id = id;
    this.#replaces = replaces;
    this.key = endpointKey(candidate.endpoint);
    this.candidate = candidate;
    this.result =
      candidate.trust.level === 'untrusted'
        ? { status: 'untrusted', reason: candidate.trust.reason }
        : { status: 'unknown' };
  }

  /** The address, and for a service its process: restarted on the same port, it is another endpoint. */
  get endpointId(): string {
    const { holderPid } = this.candidate.endpoint;
    return holderPid === undefined ? this.key : `${this.key}\n${holderPid}`;
  }

  /** See `OtherDirectories`; none for OpenCode 2, whose own list names them all. */
  directoriesToAsk(isTaken: (directory: string) => boolean): readonly OtherDirectory[] {
    const { dialect = 'opencode-1', directory = '' } = this.lastHealthy ?? {};
    return dialect === 'opencode-1' ? this.directories.toAsk(directory, this.#recent, isTaken) : [];
  }

  /** Directories that are not asked about: not used lately, or too many. */
  get unaskedDirectories(): number {
    return this.directories.old + (this.known?.parts.recent?.more ?? 0);
  }

  get overview(): ProbedEndpoint['overview'] {
    return this.known?.overview;
  }

  get elsewhere(): ProbedEndpoint['elsewhere'] {
    return this.directories.overviews;
  }

  get learnt(): ProbeTarget['learnt'] {
    return this.known?.parts;
  }

  get identity(): ProbeTarget['identity'] {
    return this.result.status === 'healthy' ? this.result : undefined;
  }

  get standing(): ProbeTarget['standing'] {
    const { status } = this.result;
    if (status === 'unknown') return 'fresh';
    return status === 'unhealthy' ? 'suspect' : 'known';
  }

  /** Untrusted endpoints are never sent a request. */
  get askable(): boolean {
    return this.result.status !== 'untrusted';
  }

  get healthy(): boolean {
    return this.result.status === 'healthy';
  }

  /** See `ProbedEndpoint`. */
  get unsteady(): boolean {
    return this.healthy && this.#probation > 0;
  }

  /** Rounds ask for an overview only if there is none yet. */
  get unknownParts(): readonly OverviewPart[] {
    return this.known === undefined ? OVERVIEW_PARTS : [];
  }

  /** Unhealthy for so long that a snapshot only counts it. */
  get unlisted(): boolean {
    return this.result.status === 'unhealthy' && this.misses >= MAX_MISSED_ROUNDS && this.candidate.pinned !== true;
  }

  /** A new registration is listed once it has answered; until then it would take a name from one that answers. */
  get listed(): boolean {
    if (this.result.status === 'unknown') return this.#replaces || this.candidate.pinned === true;
    return !this.unlisted;
  }

  /** Whether a probe that began after number `sequence` found its overview, or that it does not answer. */
  settledAfter(sequence: number): boolean {
    return this.#sequence > sequence && (!this.healthy || this.#overviewSequence > sequence);
  }

  /** Takes over a probe's outcome; false if a later probe has already settled. */
  settle(outcome: ProbeOutcome, nowMs: number): boolean {
    const { result, elsewhere } = outcome;
    const isService = result.status === 'healthy' && result.dialect !== 'opencode-1';
    if (elsewhere !== undefined && !isService) {
      this.directories.settle(elsewhere, this.#recent, nowMs);
      return true;
    }
    if (outcome.sequence < this.#sequence) return false;
    this.#sequence = outcome.sequence;
    if (this.healthy && result.status !== 'healthy') {
      this.lapses += 1;
      this.#probation = STEADY_ROUNDS;
    } else if (this.healthy && this.roundDue && this.#probation > 0) this.#probation -= 1;
    this.result = result;
    this.probedAtMs = nowMs;
    this.connection = outcome.connection;
    if (outcome.latencyMs !== undefined) this.#measure(outcome.latencyMs);
    if (result.status !== 'unhealthy') {
      this.lastSeenMs = nowMs;
      this.misses = 0;
      this.retries = 0;
    } else if (this.roundDue) this.misses += 1;
    this.roundDue = false;
    if (result.status === 'healthy') this.#settleHealthy(result, outcome, nowMs);
    return true;
  }

  #settleHealthy(result: Healthy, outcome: ProbeOutcome, nowMs: number): void {
    const { reported, elsewhere, sequence } = outcome;
    const before = this.known;
    this.lastHealthy = result;
    if (reported !== undefined) {
      const all = new Map(reported.map((one) => [one.directory, overviewOfReport(one, nowMs)]));
      this.known = all.get(result.directory);
      all.delete(result.directory);
      this.directories.replace(all);
    } else {
      this.known = updateOverview(before, outcome.learnt, outcome.missing, nowMs);
      if (elsewhere !== undefined) this.directories.settleService(outcome, elsewhere, nowMs);
    }
    if (reported !== undefined || this.known !== before) this.#overviewSequence = sequence;
  }

  get #recent() {
    return this.known?.parts.recent?.sessions;
  }

  #measure(ms: number): void {
    const mean = this.#meanLatencyMs ?? ms;
    this.#meanLatencyMs = mean + (ms - mean) * LATENCY_WEIGHT;
    const known = this.latencyMs ?? 0;
    const changed = this.#meanLatencyMs > known * LATENCY_CHANGE || this.#meanLatencyMs * LATENCY_CHANGE < known;
    if (this.latencyMs === undefined || changed) this.latencyMs = Math.round(this.#meanLatencyMs);
  }

  /** For a snapshot, which must not change afterwards. */
  copy(): ProbedEndpoint {
    const { id, candidate, result, misses, probedAtMs, lastSeenMs, latencyMs, unsteady } = this;
    const { lastHealthy, overview, elsewhere, connection } = this;
    return {
      id,
      candidate,
      result,
      misses,
      ...(probedAtMs === undefined ? {} : { probedAtMs }),
      ...(lastSeenMs === undefined ? {} : { lastSeenMs }),
      ...(latencyMs === undefined ? {} : { latencyMs }),
      ...(connection?.credential?.from === undefined ? {} : { passwordFrom: connection.credential.from }),
      ...(unsteady ? { unsteady } : {}),
      ...(lastHealthy === undefined ? {} : { lastHealthy }),
      ...(overview === undefined ? {} : { overview }),
      ...(elsewhere === undefined ? {} : { elsewhere }),
    };
  }
}

import { setMaxListeners } from 'node:events';
import { realpath } from 'node:fs/promises';

import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type Logger, reportMisfit } from '../base/log.ts';
import type { Settings } from '../config/settings.ts';
import { Chain, type SourceView } from '../discovery/chain.ts';
import { type DiscoverySource } from '../discovery/source.ts';
import type { Credential } from '../http/exchange.ts';
import { isSameByAbort } from '../identity/proof.ts';
import { Prover } from '../identity/prover.ts';
import { isSameByEvents, isSameService } from '../identity/same-service.ts';
import type { Candidate, Endpoint } from '../model/candidate.ts';
import type { Instance, ProbedEndpoint, Snapshot } from '../model/instance.ts';
import { type Batch, type ProbeOutcome, type ProbeCounters, Prober } from '../probing/prober.ts';
import { usableReport } from '../probing/report.ts';
import { createSameDirectory } from '../probing/same-directory.ts';
import type { Fleet, Reached, ServerSurvey, Surveyed } from './contract.ts';
import { CurrentView } from './current-view.ts';
import { EndpointFinder } from './endpoint-finder.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import { EndpointTable } from './endpoint-table.ts';
import { findInstance } from './query.ts';
import { Rounds } from './rounds.ts';
import { pairsToProve } from './same-process.ts';
import { Surveys, waitFor } from './survey.ts';

export { type Fleet, QueryError, type Reached, UnreachableError } from './contract.ts';

export interface FleetDeps {
  readonly settings: Pick<Settings, 'discoveryIntervalMs' | 'healthCheckTimeoutMs' | 'healthConcurrency'>;
  readonly sources: readonly DiscoverySource[];
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  /** Resolves the secret headers of an endpoint. */
  readonly withHeaders?: (endpoint: Endpoint, signal: AbortSignal) => Promise<Endpoint>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called shortly after a snapshot may have changed, once for a whole survey; may fire spuriously. */
  readonly onChange?: () => void;
  /** Whether something else notices immediately when this endpoint stops answering; rounds skip it while it is healthy. */
  readonly isFollowed?: (endpoint: ProbedEndpoint) => boolean;
  /** Called immediately on any possible membership change; may fire spuriously. */
  readonly onPresence?: () => void;
}

/** Answers of a round come in a burst; one review handles all of them. */
export const REVIEW_DELAY_MS = 50;

/** Share of the health deadline that the first list waits for proofs. A proof takes about 50 ms; a silent pair would wait forever. */
const PROOF_WAIT = 1 / 4;

const PROOFS = {
  'opencode-1': isSameByAbort,
  'opencode-2': isSameService,
  'opencode-2-preview': isSameByEvents,
} as const;

export class LiveFleet implements Fleet {
  readonly #deps: FleetDeps;
  readonly #chain: Chain;
  readonly #prober: Prober<EndpointRecord>;
  readonly #prover: Prover;
  readonly #table = new EndpointTable();
  readonly #root = new AbortController();
  readonly #rounds: Rounds;
  readonly #surveys: Surveys;
  /** For probes that no call waits for. */
  readonly #batch: Batch<EndpointRecord>;
  readonly #view: CurrentView;
  readonly #finder: EndpointFinder;
  #reviewing = false;
  /** Callers of `changed`. */
  readonly #waiting = new Set<LinkedAbort>();
  /** `onChange` is still to be called for the last changes. */
  #changed = false;
  /** Look for pairs to prove at the next review: endpoints changed, or silent pairs may be due again. */
  #suspectsDue = false;
  #ready: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(deps: FleetDeps) {
    const { clock, logger, sources, settings, resolveCredential, withHeaders } = deps;
    const { discoveryIntervalMs: intervalMs, healthCheckTimeoutMs: deadlineMs } = settings;
    const { signal } = this.#root;
    this.#deps = deps;
    // Each retry of an endpoint listens.
    setMaxListeners(0, signal);
    this.#chain = new Chain(sources, {
      clock,
      logger,
      discoveryIntervalMs: intervalMs,
      onChange: (source) => this.#scanned(source),
    });
    this.#prober = new Prober({
      clock,
      slots: settings.healthConcurrency,
      deadlineMs,
      sameDirectory: createSameDirectory(realpath),
      resolveCredential,
      withHeaders,
      onOutcome: (record, outcome) => this.#settle(record, outcome),
    });
    this.#prover = new Prover({
      clock,
      isSame: (dialect, one, other, signal) => PROOFS[dialect](one, other, { clock, deadlineMs }, signal),
      probe: (keys) =>
        Promise.all(keys.flatMap((key) => [...this.#table.at(key)]).map((record) => this.#rounds.look(record))),
      onSettled: () => this.#membershipChanged(),
    });
    this.#view = new CurrentView(this.#table, () => ({
      proofs: this.#prover.proofs(),
      returning: this.#prover.returning(),
      sources: this.#chain.views(),
    }));
    this.#finder = new EndpointFinder({
      table: this.#table,
      prober: this.#prober,
      instances: () => callable(this.snapshot()),
      settle: (record, outcome) => this.#settle(record, outcome),
    });
    this.#batch = this.#prober.batch();
    this.#rounds = new Rounds({
      clock,
      intervalMs,
      table: this.#table,
      batch: this.#batch,
      isFollowed: deps.isFollowed ?? (() => false),
      onEnd: () => {
        this.#suspectsDue = true;
        this.#touch();
      },
    });
    this.#surveys = new Surveys({
      table: this.#table,
      prober: this.#prober,
      chain: this.#chain,
      rounds: this.#rounds,
      clock,
      deadlineMs,
      instances: () => this.snapshot().instances,
      signal,
    });
  }

  /** For tests and benchmarks. */
  get counters(): Readonly<ProbeCounters> {
    return this.#prober.counters;
  }

  start(): void {
    const { signal } = this.#root;
    if (this.#ready !== undefined || signal.aborted) return;
    this.#chain.start();
    this.#ready = this.#wait(this.#firstRound());
    void this.#rounds.keep(signal);
  }

  snapshot(): Snapshot {
    return this.#view.get().snapshot;
  }

  async ready(): Promise<void> {
    await this.#ready;
  }

  async refresh(signal?: AbortSignal): Promise<Snapshot> {
    await this.#surveyed(this.#surveys.everything(), signal);
    return this.snapshot();
  }

  async survey(signal?: AbortSignal): Promise<Snapshot> {
    const { sequence } = this.#prober;
    // `sequence` is read first: the survey skips what the first round asks from now on.
    await waitFor(this.ready(), this.#deps.clock, Infinity, signal);
    if (signal?.aborted !== true) await this.#surveyed(this.#surveys.listed(sequence), signal);
    return this.snapshot();
  }

  async changed(signal: AbortSignal): Promise<void> {
    const next = new LinkedAbort(signal);
    this.#waiting.add(next);
    await this.#deps.clock.sleep(Infinity, next.signal);
    this.#waiting.delete(next);
    next.end();
  }

  resolve(query: string): Instance {
    const snapshot = this.snapshot();
    return findInstance(query, callable(snapshot), snapshot.gone, this.#deps.clock.now());
  }

  reach(instance: Instance, signal?: AbortSignal): Promise<Reached> {
    return this.#finder.reach(instance, signal);
  }

  reachAnother(reached: Reached, failed: readonly string[], signal?: AbortSignal): Promise<Reached> {
    return this.#finder.reachAnother(reached, failed, signal);
  }

  worksIn({ instance }: Pick<Reached, 'instance'>, session: Parameters<Fleet['worksIn']>[1]): void {
    for (const { directories } of this.#table.recordsOf(instance.server.endpoints)) directories.visit(session);
  }

  async surveyServer({ instance, endpointId }: Surveyed, signal?: AbortSignal): Promise<ServerSurvey> {
    const records = await this.#surveys.one(instance, endpointId, signal);
    this.#takeReports(records);
    const isOfServer = ({ server }: Instance): boolean =>
      server.endpoints.some(({ id }) => records.some((record) => record.id === id));
    return {
      instances: this.snapshot().instances.filter(isOfServer),
      asked: records.flatMap(({ directories }) => directories.asked),
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    this.#root.abort();
    this.#prober.close();
    await Promise.all([this.#prover.close(), this.#chain.close()]);
  }

  async #firstRound(): Promise<void> {
    await this.#chain.scanned();
    await this.#rounds.settled();
    // Otherwise two endpoints of one instance would be listed, and named, as two instances.
    this.#considerProofs();
    await this.#wait(this.#prover.idle(), PROOF_WAIT);
  }

  /** Takes over a scan; new registrations are probed immediately, ahead of the next round. */
  #scanned({ name, candidates }: SourceView): void {
    const { added, removed, reported, changed } = this.#table.apply(name, candidates);
    for (const record of removed) {
      this.#view.remember(record);
      this.#prober.forget(record);
      if (!this.#table.has(record.key)) this.#prover.forget(record.key);
      else if (!this.#table.isHealthy(record.key)) this.#prover.unhealthy(record.key);
    }
    for (const record of added) void this.#rounds.look(record);
    this.#takeReports(reported);
    this.#suspectsDue ||= changed;
    this.#membershipChanged();
  }

  /** Bypasses `Rounds`: a probe that is under way there may have begun before the report. */
  #takeReports(records: readonly EndpointRecord[]): void {
    for (const record of records)
      if (usableReport(record.candidate) !== undefined) void this.#batch.look(record, { parts: [] });
  }

  #settle(record: EndpointRecord, outcome: ProbeOutcome): void {
    if (this.#table.get(record.id) !== record) return;
    for (const misfit of outcome.misfits ?? []) reportMisfit(misfit, this.#deps.logger);
    const wasHealthy = record.healthy;
    if (!record.settle(outcome, this.#deps.clock.now())) return;
    if (outcome.notNow || (outcome.timedOut && record.lastSeenMs === undefined))
      void this.#rounds.lookAgainSoon(record, this.#root.signal);
    if (record.healthy !== wasHealthy) this.#healthChanged(record);
    // The preview is identified by the events of a running turn only.
    const { dialect } = record.lastHealthy ?? {};
    this.#suspectsDue ||= dialect === 'opencode-2-preview' && outcome.learnt.status?.activity.kind === 'busy';
    this.#touch();
  }

  #healthChanged({ id, key, healthy }: EndpointRecord): void {
    this.#deps.logger.log('debug', `endpoint ${healthy ? 'answers' : 'stopped answering'}`, { endpoint: id });
    this.#suspectsDue = true;
    if (healthy) this.#prover.healthy(key, (other) => this.#table.isHealthy(other));
    else if (!this.#table.isHealthy(key)) this.#prover.unhealthy(key);
    this.#membershipChanged();
  }

  #membershipChanged(): void {
    this.#touch();
    this.#deps.onPresence?.();
  }

  /** A snapshot may show a difference. */
  #touch(): void {
    this.#view.outdate();
    this.#changed = true;
    if (this.#reviewing || this.#root.signal.aborted) return;
    this.#reviewing = true;
    void this.#deps.clock.sleep(REVIEW_DELAY_MS, this.#root.signal).then(() => {
      this.#reviewing = false;
      if (!this.#root.signal.aborted) this.#review();
    });
  }

  #review(): void {
    if (this.#suspectsDue) this.#considerProofs();
    for (const next of this.#waiting) next.abort();
    // Each call makes its reader build a view; during a survey every answer would.
    if (!this.#changed || this.#surveys.running) return;
    this.#changed = false;
    this.#deps.onChange?.();
  }

  #considerProofs(): void {
    this.#suspectsDue = false;
    this.#prover.consider(pairsToProve(this.#table, this.#deps.clock.now()));
  }

  /** After the survey, readers get the change that was held back; see `#review`. */
  #surveyed(survey: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const work = survey.finally(() => this.#touch());
    return waitFor(work, this.#deps.clock, Infinity, signal);
  }

  /** Waits for `work`, at most for a share of the health deadline, and not past `close`. */
  #wait(work: Promise<unknown>, share = 1): Promise<void> {
    const { clock, settings } = this.#deps;
    return waitFor(work, clock, settings.healthCheckTimeoutMs * share, this.#root.signal);
  }
}

function callable({ instances, resting }: Snapshot): readonly Instance[] {
  return [...instances, ...resting];
}

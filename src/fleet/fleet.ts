import { setMaxListeners } from 'node:events';
import { realpath } from 'node:fs/promises';

import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Settings } from '../config/settings.ts';
import { Chain, type SourceView } from '../discovery/chain.ts';
import { type Candidate, type Endpoint, ROUTES } from '../model/candidate.ts';
import { type DiscoverySource } from '../discovery/source.ts';
import { type Logger, reportMisfit } from '../base/log.ts';
import type { Credential } from '../http/exchange.ts';
import type { Fleet, Reached, ServerSurvey, Surveyed } from './contract.ts';
import { CurrentView } from './current-view.ts';
import { type EndpointRecord, EndpointTable } from './endpoint-table.ts';
import type { Instance, ProbedEndpoint, Snapshot } from '../model/instance.ts';
import { proveSame } from '../identity/proof.ts';
import { hearSame, isSameService } from '../identity/same-service.ts';
import { type Batch, type ProbeOutcome, type ProbeCounters, Prober } from '../probing/prober.ts';
import { type Pair, Prover } from '../identity/prover.ts';
import { findInstance } from './query.ts';
import { Rounds } from './rounds.ts';
import { usableReport } from '../probing/report.ts';
import { createSameDirectory } from '../probing/same-directory.ts';
import { askOverviews } from './survey.ts';
import { suspects } from '../identity/suspects.ts';
import { EndpointFinder } from './endpoint-finder.ts';

export { type Fleet, QueryError, type Reached, UnreachableError } from './contract.ts';

export interface FleetDeps {
  readonly settings: Pick<Settings, 'discoveryIntervalMs' | 'healthCheckTimeoutMs' | 'healthConcurrency'>;
  readonly sources: readonly DiscoverySource[];
  readonly resolveCredential: (candidate: Candidate, signal: AbortSignal) => Promise<Credential | undefined>;
  /** An endpoint with the text of headers that are secrets. */
  readonly withHeaders?: (endpoint: Endpoint, signal: AbortSignal) => Promise<Endpoint>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called shortly after anything that is shown may have changed, once for a whole survey; may fire spuriously. */
  readonly onChange?: () => void;
  /** Whether somebody else notices at once that an endpoint stops answering: rounds leave it alone while it is healthy. */
  readonly isFollowed?: (endpoint: ProbedEndpoint) => boolean;
  /** Called immediately on any possible membership change; may fire spuriously. */
  readonly onPresence?: () => void;
}

/** The answers of a round come in a burst: pairs to prove are looked for, and changes passed on, once for all of them. */
export const REVIEW_DELAY_MS = 50;

/** Share of the health deadline that the first list waits for proofs. One takes some 50 ms; silence, which proves nothing, takes for ever. */
const PROOF_WAIT = 1 / 4;

const PROOFS = {
  'opencode-1': proveSame,
  'opencode-2': isSameService,
  'opencode-2-preview': hearSame,
} as const;

export class LiveFleet implements Fleet {
  readonly #deps: FleetDeps;
  readonly #chain: Chain;
  readonly #prober: Prober<EndpointRecord>;
  readonly #prover: Prover;
  readonly #table = new EndpointTable();
  readonly #root = new AbortController();
  readonly #rounds: Rounds;
  /** For looks that no call waits for. */
  readonly #batch: Batch<EndpointRecord>;
  readonly #view: CurrentView;
  readonly #finder: EndpointFinder;
  #reviewing = false;
  /** Each ends with the next change. */
  readonly #waiting = new Set<LinkedAbort>();
  /** `onChange` has not been called for it yet. */
  #changed = false;
  /** Who is healthy or registered is different, or silent pairs may be due again. */
  #suspectsDue = false;
  #ready: Promise<void> | undefined;
  #survey: Promise<void> | undefined;
  #refresh: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(deps: FleetDeps) {
    const { clock, logger, sources, settings, resolveCredential, withHeaders } = deps;
    this.#deps = deps;
    // One for each registration that is about to be looked at again.
    setMaxListeners(0, this.#root.signal);
    this.#chain = new Chain(sources, {
      clock,
      logger,
      discoveryIntervalMs: settings.discoveryIntervalMs,
      onChange: (source) => this.#registered(source),
    });
    this.#prober = new Prober({
      clock,
      slots: settings.healthConcurrency,
      deadlineMs: settings.healthCheckTimeoutMs,
      sameDirectory: createSameDirectory(realpath),
      resolveCredential,
      withHeaders,
      onOutcome: (record, outcome) => this.#settle(record, outcome),
    });
    this.#prover = new Prover({
      clock,
      proveSame: (dialect, { listen, speak }, signal) => {
        return PROOFS[dialect](listen, speak, { clock, deadlineMs: settings.healthCheckTimeoutMs }, signal);
      },
      lookAgain: (keys) =>
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
      intervalMs: settings.discoveryIntervalMs,
      table: this.#table,
      batch: this.#batch,
      isFollowed: deps.isFollowed ?? (() => false),
      onEnd: () => this.#considerAll(),
    });
  }

  /** For tests and benchmarks. */
  get counters(): Readonly<ProbeCounters> {
    return this.#prober.counters;
  }

  start(): void {
    if (this.#ready !== undefined || this.#root.signal.aborted) return;
    this.#chain.start();
    this.#ready = this.#within(this.#firstRound());
    void this.#rounds.keep(this.#root.signal);
  }

  snapshot(): Snapshot {
    return this.#view.get().snapshot;
  }

  async ready(): Promise<void> {
    await this.#ready;
  }

  async refresh(signal?: AbortSignal): Promise<Snapshot> {
    this.#refresh ??= this.#surveyAll('everything').finally(() => {
      this.#refresh = undefined;
      this.#touch();
    });
    await untilAborted(this.#refresh, signal);
    return this.snapshot();
  }

  async survey(signal?: AbortSignal): Promise<Snapshot> {
    const { sequence } = this.#prober;
    // The first round may be under way: what it asks from now on is not asked a second time.
    await untilAborted(this.ready(), signal);
    if (signal?.aborted !== true) {
      this.#survey ??= this.#surveyAll({ askedBefore: sequence }).finally(() => {
        this.#survey = undefined;
        this.#touch();
      });
      await untilAborted(this.#survey, signal);
    }
    return this.snapshot();
  }

  async changed(signal: AbortSignal): Promise<void> {
    const next = new LinkedAbort(signal, this.#root.signal);
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

  worksIn({ instance }: Pick<Reached, 'instance'>, session: Parameters<Fleet['worksIn']>[1]): void {
    for (const record of this.#table.recordsOf(instance.server.endpoints)) record.worksIn(session);
  }

  reachAnother(reached: Reached, failed: readonly string[], signal?: AbortSignal): Promise<Reached> {
    return this.#finder.reachAnother(reached, failed, signal);
  }

  async surveyServer({ instance, endpointId: reached }: Surveyed, signal?: AbortSignal): Promise<ServerSurvey> {
    const { clock, settings } = this.#deps;
    const batch = this.#prober.batch();
    const all = this.#table.recordsOf(instance.server.endpoints);
    const isReached = ({ endpointId }: EndpointRecord): boolean => endpointId === reached;
    const records = [...all.filter(isReached), ...all.filter((one) => !isReached(one))];
    const asking = askOverviews([records], new Set([records]), batch, {
      clock,
      deadlineMs: settings.healthCheckTimeoutMs,
      takenDirectories: () => this.#table.takenDirectories(),
      trustsVersion: true,
      trustsReports: false,
    });
    await untilAborted(this.#within(asking), signal);
    batch.end();
    this.#takeReports(records);
    const isOfServer = ({ server }: Instance): boolean =>
      server.endpoints.some(({ id }) => records.some((record) => record.id === id));
    return {
      instances: this.snapshot().instances.filter(isOfServer),
      asked: records.flatMap(({ askedElsewhere }) => askedElsewhere),
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

  /** A source was scanned: what is new is looked at at once, ahead of the next round. */
  #registered({ name, candidates }: SourceView): void {
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

  /** Not as a look of the rounds, which one under way would stand for: that may have asked before. */
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
    if (record.healthy !== wasHealthy) {
      this.#deps.logger.log('debug', `endpoint ${record.healthy ? 'answers' : 'stopped answering'}`, {
        endpoint: record.id,
      });
      this.#suspectsDue = true;
      if (record.healthy) this.#prover.healthy(record.key, (key) => this.#table.isHealthy(key));
      else if (!this.#table.isHealthy(record.key)) this.#prover.unhealthy(record.key);
      this.#membershipChanged();
    }
    // The preview is identified only by its events.
    const { dialect } = record.lastHealthy ?? {};
    this.#suspectsDue ||= dialect === 'opencode-2-preview' && outcome.learnt.status?.activity.kind === 'busy';
    this.#touch();
  }

  async #firstRound(): Promise<void> {
    await this.#chain.scanned();
    await this.#rounds.settled();
    // Two ways to one instance would otherwise be listed, and named, as two.
    this.#considerProofs();
    await this.#within(this.#prover.idle(), PROOF_WAIT);
  }

  /** Silent pairs may be due again. */
  #considerAll(): void {
    this.#suspectsDue = true;
    this.#touch();
  }

  /** Asks the listed instances, or everything that is registered, what they are doing; ends within one health deadline. */
  async #surveyAll(scope: 'everything' | { readonly askedBefore: number }): Promise<void> {
    const { clock, settings } = this.#deps;
    const batch = this.#prober.batch();
    const servers = [...new Set(this.snapshot().instances.map(({ server }) => server))].map(({ endpoints }) =>
      this.#table.recordsOf(endpoints),
    );
    const due =
      scope === 'everything'
        ? servers
        : servers.filter(([best]) => best === undefined || !best.toldAfter(scope.askedBefore));
    const trustsVersion = scope !== 'everything';
    const work: Promise<unknown>[] = [
      askOverviews(servers, new Set(due), batch, {
        clock,
        deadlineMs: settings.healthCheckTimeoutMs,
        trustsVersion,
        trustsReports: true,
        takenDirectories: () => this.#table.takenDirectories(),
      }),
    ];
    if (scope === 'everything') {
      for (const record of this.#table.all())
        if (record.askable) work.push(batch.look(record, { parts: record.unknownParts }));
      work.push(this.#chain.rescan().then(() => this.#rounds.settled()));
    } else work.push(this.#rounds.newcomers());
    await this.#within(Promise.all(work));
    batch.end();
  }

  #membershipChanged(): void {
    this.#touch();
    this.#deps.onPresence?.();
  }

  /** Something that a view shows is different. */
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
    // Each call makes its reader build a view; in the middle of a survey every answer would.
    if (!this.#changed || this.#survey !== undefined || this.#refresh !== undefined) return;
    this.#changed = false;
    this.#deps.onChange?.();
    for (const next of this.#waiting) next.abort();
  }

  #considerProofs(): void {
    this.#suspectsDue = false;
    const pairs = suspects([...this.#table.all()], this.#deps.clock.now()).flatMap(({ keys, endpoints }): Pair[] => {
      const [one, other] = endpoints.toSorted(
        (a, b) => ROUTES.indexOf(a.candidate.endpoint.route) - ROUTES.indexOf(b.candidate.endpoint.route),
      );
      const connections = [one, other].map((endpoint) => this.#table.get(endpoint?.id ?? '')?.connection);
      const dialect = one?.lastHealthy?.dialect ?? 'opencode-1';
      return connections[0] && connections[1] ? [{ keys, connections: [connections[0], connections[1]], dialect }] : [];
    });
    this.#prover.consider(pairs);
  }

  /** Waits for `work`, but not longer than one health deadline or a share of it, nor past `close`. */
  async #within(work: Promise<unknown>, share = 1): Promise<void> {
    const over = new AbortController();
    await Promise.race([
      work,
      this.#deps.clock.sleep(this.#deps.settings.healthCheckTimeoutMs * share, over.signal),
      aborted(this.#root.signal, over.signal),
    ]);
    over.abort();
  }
}

function callable({ instances, resting }: Snapshot): readonly Instance[] {
  return [...instances, ...resting];
}

/** Resolves when `signal` aborts; `done` lets go of it. */
function aborted(signal: AbortSignal, done: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true, signal: done });
  });
}

/** Waits for `work` until a caller has had enough. Never rejects. */
async function untilAborted(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return work;
  const over = new AbortController();
  await Promise.race([work, aborted(signal, over.signal)]);
  over.abort();
}

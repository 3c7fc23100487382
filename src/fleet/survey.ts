import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Chain } from '../discovery/chain.ts';
import { type Instance, OVERVIEW_PARTS } from '../model/instance.ts';
import type { Batch, Prober } from '../probing/prober.ts';
import { usableReport } from '../probing/report.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import type { EndpointTable, IsTaken } from './endpoint-table.ts';
import type { Rounds } from './rounds.ts';

export interface SurveyDeps {
  readonly table: EndpointTable;
  readonly clock: Clock;
  readonly deadlineMs: number;
}

export interface SurveysDeps extends SurveyDeps {
  readonly prober: Prober<EndpointRecord>;
  readonly chain: Chain;
  readonly rounds: Rounds;
  /** The instances that a snapshot lists now. */
  readonly instances: () => readonly Instance[];
  /** Aborts when the fleet closes. */
  readonly signal: AbortSignal;
}

/** Surveys that tools start beside the rounds, each bounded by one health deadline. Calls share a survey that is under way. */
export class Surveys {
  readonly #deps: SurveysDeps;
  #listed: Promise<void> | undefined;
  #everything: Promise<void> | undefined;

  constructor(deps: SurveysDeps) {
    this.#deps = deps;
  }

  /** Whether a survey of many servers is under way. */
  get running(): boolean {
    return this.#listed !== undefined || this.#everything !== undefined;
  }

  /** Asks the listed instances what they are doing, except those that a probe after number `sequence` has asked. */
  listed(sequence: number): Promise<void> {
    this.#listed ??= this.#surveyListed(sequence).finally(() => {
      this.#listed = undefined;
    });
    return this.#listed;
  }

  /** Scans every source, and asks everything that is registered. */
  everything(): Promise<void> {
    this.#everything ??= this.#surveyEverything().finally(() => {
      this.#everything = undefined;
    });
    return this.#everything;
  }

  /** Asks one server about its own directory and its others, through the endpoint `reachedBy` first. Returns its records. */
  async one(
    instance: Instance,
    reachedBy: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<readonly EndpointRecord[]> {
    const all = this.#deps.table.recordsOf(instance.server.endpoints);
    const isReached = ({ endpointId }: EndpointRecord): boolean => endpointId === reachedBy;
    const records = [...all.filter(isReached), ...all.filter((one) => !isReached(one))];
    const batch = this.#deps.prober.batch();
    const flags = { trustsVersion: true, trustsReports: false };
    await this.#bounded(
      askOverviews({ servers: [records], due: new Set([records]), batch, ...flags }, this.#deps),
      signal,
    );
    batch.end();
    return records;
  }

  async #surveyListed(sequence: number): Promise<void> {
    const servers = this.#servers();
    const due = servers.filter(([best]) => best === undefined || !best.settledAfter(sequence));
    const batch = this.#deps.prober.batch();
    const flags = { trustsVersion: true, trustsReports: true };
    const asking = askOverviews({ servers, due: new Set(due), batch, ...flags }, this.#deps);
    await this.#bounded(Promise.all([asking, this.#deps.rounds.newcomers()]));
    batch.end();
  }

  async #surveyEverything(): Promise<void> {
    const { prober, table, chain, rounds } = this.#deps;
    const servers = this.#servers();
    const batch = prober.batch();
    const flags = { trustsVersion: false, trustsReports: true };
    const asking = askOverviews({ servers, due: new Set(servers), batch, ...flags }, this.#deps);
    const looks = [...table.all()]
      .filter(({ askable }) => askable)
      .map((record) => batch.look(record, { parts: record.unknownParts }));
    await this.#bounded(Promise.all([asking, ...looks, chain.rescan().then(() => rounds.settled())]));
    batch.end();
  }

  #servers(): readonly (readonly EndpointRecord[])[] {
    const servers = new Set(this.#deps.instances().map(({ server }) => server));
    return [...servers].map(({ endpoints }) => this.#deps.table.recordsOf(endpoints));
  }

  #bounded(work: Promise<unknown>, signal?: AbortSignal): Promise<void> {
    const { clock, deadlineMs, signal: closing } = this.#deps;
    return waitFor(work, clock, deadlineMs, closing, signal);
  }
}

/** A server's endpoints, best first. */
type Endpoints = readonly EndpointRecord[];

export interface OverviewRequest {
  readonly servers: readonly Endpoints[];
  /** Those of `servers` whose own directory is asked about too. */
  readonly due: ReadonlySet<Endpoints>;
  readonly batch: Batch<EndpointRecord>;
  /** Skip the version check: the last round's result is good enough. */
  readonly trustsVersion: boolean;
  /** Take the other directories of a watched server from its watcher's report, and request nothing about them. */
  readonly trustsReports: boolean;
}

/** Share of the health deadline after which the next endpoint is asked beside a silent one: a little more than a first probe takes. */
const NEXT_ENDPOINT = 0.3;

/**
 * Asks each server what it is doing in its own directory, then in its others; the server asked longest ago comes first. The others in two
 * passes: once a session looks interrupted in its own server, the second pass asks the other servers whether it runs there.
 */
export async function askOverviews(request: OverviewRequest, deps: SurveyDeps): Promise<void> {
  const { servers, due, batch, trustsReports } = request;
  const ordered = servers.toSorted((one, other) => (one[0]?.probedAtMs ?? 0) - (other[0]?.probedAtMs ?? 0));
  const taken = deps.table.takenDirectories();
  const others = await Promise.all(
    ordered.map(async (records) => {
      if (due.has(records)) await askOne(records, request, deps);
      if (trustsReports && shareReport(records)) return undefined;
      const askOthers = otherDirectories(records, batch);
      await askOthers(taken);
      return askOthers;
    }),
  );
  const stillTaken = deps.table.takenDirectories();
  await Promise.all(others.map(async (askOthers) => await askOthers?.(stillTaken)));
}

function isReported({ candidate, healthy }: EndpointRecord): boolean {
  return healthy && usableReport(candidate) !== undefined;
}

/** Copies a watcher's report to the server's other endpoints; false if no endpoint has one. */
function shareReport(records: Endpoints): boolean {
  const reported = records.find(isReported);
  if (reported === undefined) return false;
  for (const other of records) if (other !== reported) other.directories.copy(reported.directories);
  return true;
}

/**
 * Returns a function that asks about the server's other directories that are not taken, each once, through the endpoint that answered
 * last. The endpoints of a server share what they learn, because any of them may be the only one left later.
 */
function otherDirectories(records: Endpoints, batch: Batch<EndpointRecord>): (isTaken: IsTaken) => Promise<void> {
  const asked = new Set<string>();
  for (const { directories } of records) directories.asked = [];
  return async (isTaken) => {
    const record = lastAnswered(records);
    if (record === undefined) return;
    const { directories } = record;
    const others = records.filter((other) => other !== record).map((other) => other.directories);
    for (const other of others) directories.merge(other);
    const elsewhere = record
      .directoriesToAsk((directory) => isTaken(record, directory))
      .filter(({ directory }) => !asked.has(directory));
    for (const { directory } of elsewhere) asked.add(directory);
    if (elsewhere.length > 0) await batch.look(record, { parts: [], elsewhere });
    for (const other of others) other.copy(directories);
  };
}

function lastAnswered(records: Endpoints): EndpointRecord | undefined {
  const askedAtMs = ({ known }: EndpointRecord): number => known?.overview.askedAtMs ?? 0;
  return records.filter(({ healthy }) => healthy).toSorted((one, other) => askedAtMs(other) - askedAtMs(one))[0];
}

/** Asks through the best endpoint, one with a report first; through the next as well if that fails or is silent. */
async function askOne(
  records: Endpoints,
  { batch, trustsVersion }: OverviewRequest,
  { clock, deadlineMs }: SurveyDeps,
): Promise<void> {
  const askable = records
    .filter((record) => record.askable)
    .toSorted((one, other) => Number(isReported(other)) - Number(isReported(one)));
  const asked: Promise<unknown>[] = [];
  for (const [index, record] of askable.entries()) {
    const looking = batch.look(record, { parts: OVERVIEW_PARTS, trustsVersion });
    asked.push(looking);
    if (index === askable.length - 1) break;
    const silence = new AbortController();
    const outcome = await Promise.race([looking, clock.sleep(deadlineMs * NEXT_ENDPOINT, silence.signal)]);
    silence.abort();
    if (outcome?.result.status === 'healthy') return;
  }
  await Promise.all(asked);
}

/** Waits for `work`, for at most `ms`, and until one of `signals` aborts. Rejects only if `work` does. */
export async function waitFor(
  work: Promise<unknown>,
  clock: Clock,
  ms: number,
  ...signals: readonly (AbortSignal | undefined)[]
): Promise<void> {
  const over = new LinkedAbort(...signals);
  try {
    await Promise.race([work, clock.sleep(ms, over.signal)]);
  } finally {
    over.end();
  }
}

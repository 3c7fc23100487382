import type { Candidate, Claims } from '../model/candidate.ts';
import type { Connection } from '../http/exchange.ts';
import { addressOf, endpointKey } from '../model/endpoint-key.ts';
import { OVERVIEW_PARTS, type OverviewPart, type ProbedEndpoint, type ProbeResult } from '../model/instance.ts';
import { type KnownOverview, type OtherDirectory, overviewOfReport, updateOverview } from '../probing/overview.ts';
import { hostKey } from '../identity/default-name.ts';
import { isSame } from '../identity/names.ts';
import { identityOf, isVouchedFor } from '../identity/naming.ts';
import { LATELY_MS } from '../probing/ask-service.ts';
import type { Healthy } from '../probing/probe-task.ts';
import type { ProbeOutcome, ProbeTarget } from '../probing/prober.ts';

/** Rounds without an answer after which an instance is no longer listed: one lost packet or a laptop's nap is not an end. */
export const MAX_MISSED_ROUNDS = 5;

/** Rounds in a row that a way must answer after it failed before it is preferred again: one that comes and goes never does. */
export const STEADY_ROUNDS = 3;

/** A way counts as slower or faster once it is by so much: near a step of the order it would change places with every probe. */
const LATENCY_CHANGE = 2;
/** Share of the newest measurement in the running mean. */
const LATENCY_WEIGHT = 0.3;

/** Directories that calls went to and no survey has asked about yet. */
const MAX_VISITED = 32;

/** What is known of one registered endpoint. Replaced, not changed, when the registration becomes another. */
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
  /** How often it stopped being healthy: what was proven of it before holds no longer. */
  lapses = 0;
  lastHealthy?: Healthy;
  known?: KnownOverview | undefined;
  /** What a request to it needs, as its last probe had it. Holds the password: not for snapshots. */
  connection?: Connection;
  /** The directories beside its own that it was seen to work in. */
  #others: ReadonlyMap<string, KnownOverview> = new Map();
  /** The other directories whose status the last survey learnt. */
  askedElsewhere: readonly string[] = [];
  /** See `worksIn`: a session of each. */
  #visited: Map<string, string> = new Map();
  /** Looks ahead of the schedule that it got since it answered last. */
  retries = 0;
  /** A scheduled round waits for the answer. */
  roundDue = false;
  /** Its registration took the place of one that was listed, so that it is listed before it was asked. */
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

  /** Which address it is, and of a service which process: started again on the same port it is another way. */
  get endpointId(): string {
    const { holderPid } = this.candidate.endpoint;
    return holderPid === undefined ? this.key : `${this.key}\n${holderPid}`;
  }

  /** It may work in the directory of this session of its own: the next survey asks. */
  worksIn({ id, directory }: { readonly id: string; readonly directory: string }): void {
    if (this.#visited.size < MAX_VISITED) this.#visited.set(directory, id);
  }

  /** Takes over what another way to the same server, or the registration that this one replaces, found out about other directories. */
  takeElsewhere(from: EndpointRecord): void {
    const others = new Map(this.#others);
    for (const [directory, known] of from.#others)
      if (known.overview.askedAtMs > (others.get(directory)?.overview.askedAtMs ?? 0)) others.set(directory, known);
    this.#others = others;
    for (const [directory, id] of from.#visited) this.worksIn({ id, directory });
  }

  /** Another way to the same server has asked. */
  copyElsewhere(from: EndpointRecord): void {
    this.#others = from.#others;
    this.#visited = new Map(from.#visited);
    this.askedElsewhere = from.askedElsewhere;
  }

  /**
   * The directories to ask about beside its own: where it was seen to work, where calls went, and where its sessions were used lately.
   * Of those of other servers (`isTaken`) only where it was seen to work itself, since processes of one home share their sessions.
   */
  otherDirectories(isTaken: (directory: string) => boolean): readonly OtherDirectory[] {
    if (this.lastHealthy !== undefined && this.lastHealthy.dialect !== 'opencode-1') return [];
    const recent = this.known?.parts.recent?.sessions;
    const lately = [...(recent?.keys() ?? [])].filter((directory) => !isTaken(directory));
    const all = new Set([...this.#others.keys(), ...this.#visited.keys(), ...lately]);
    all.delete(this.lastHealthy?.directory ?? '');
    return [...all].map((directory) => {
      const known = this.#others.get(directory)?.parts;
      const listed = recent?.get(directory);
      return {
        directory,
        known,
        isListed: listed !== undefined,
        witness: listed?.id ?? known?.status?.running[0] ?? known?.witness ?? this.#visited.get(directory),
        session: listed?.isChild === false ? listed : (known?.session ?? undefined),
      };
    });
  }

  /** Used lately, and past the number that is asked about. */
  get unaskedDirectories(): number {
    const old = [...this.#others.values()].filter(({ overview }) => overview.isOld === true);
    return old.length + (this.known?.parts.recent?.more ?? 0);
  }

  get overview(): ProbedEndpoint['overview'] {
    return this.known?.overview;
  }

  get elsewhere(): ProbedEndpoint['elsewhere'] {
    if (this.#others.size === 0) return undefined;
    return new Map([...this.#others].map(([directory, { overview }]) => [directory, overview]));
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

  /** One that nobody vouches for is left alone. */
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

  /** Rounds need no overview, except where there is none yet. */
  get unknownParts(): readonly OverviewPart[] {
    return this.known === undefined ? OVERVIEW_PARTS : [];
  }

  /** Dead for so long that it is only counted. */
  get unlisted(): boolean {
    return this.result.status === 'unhealthy' && this.misses >= MAX_MISSED_ROUNDS && this.candidate.pinned !== true;
  }

  /** A new registration that has not answered yet would take a name from one that does. */
  get listed(): boolean {
    if (this.result.status === 'unknown') return this.#replaces || this.candidate.pinned === true;
    return !this.unlisted;
  }

  /** Whether a probe that began after number `sequence` has answered or failed. */
  toldAfter(sequence: number): boolean {
    return this.#sequence > sequence && (!this.healthy || this.#overviewSequence > sequence);
  }

  /** Takes over what a probe found; false if a later probe was faster. */
  settle(outcome: ProbeOutcome, nowMs: number): boolean {
    const isService = outcome.result.status === 'healthy' && outcome.result.dialect !== 'opencode-1';
    if (outcome.elsewhere !== undefined && !isService) {
      this.#settleElsewhere(outcome.elsewhere, nowMs);
      return true;
    }
    if (outcome.sequence < this.#sequence) return false;
    this.#sequence = outcome.sequence;
    const { result } = outcome;
    if (this.healthy && result.status !== 'healthy') {
      this.lapses += 1;
      this.#probation = STEADY_ROUNDS;
    } else if (this.healthy && this.roundDue && this.#probation > 0) this.#probation -= 1;
    const answered = result.status !== 'unhealthy';
    this.result = result;
    this.probedAtMs = nowMs;
    this.connection = outcome.connection;
    if (outcome.latencyMs !== undefined) this.#measure(outcome.latencyMs);
    if (answered) {
      this.lastSeenMs = nowMs;
      this.misses = 0;
      this.retries = 0;
    } else if (this.roundDue) this.misses += 1;
    this.roundDue = false;
    if (result.status === 'healthy') {
      this.lastHealthy = result;
      if (outcome.reported !== undefined) {
        this.#settleReport(outcome.reported, result.directory, nowMs);
        this.#overviewSequence = outcome.sequence;
        return true;
      }
      const known = updateOverview(this.known, outcome.learnt, outcome.missing, nowMs);
      if (known !== this.known) this.#overviewSequence = outcome.sequence;
      this.known = known;
      if (outcome.elsewhere !== undefined) this.#settleService(outcome, outcome.elsewhere, nowMs);
    }
    return true;
  }

  /** All that it does, and so nothing else. Its directories are not among those that were asked about, which go into requests. */
  #settleReport(reported: NonNullable<ProbeOutcome['reported']>, own: string, nowMs: number): void {
    const all = new Map(reported.map((one) => [one.directory, overviewOfReport(one, nowMs)]));
    this.known = all.get(own);
    all.delete(own);
    this.#others = all;
  }

  /** A directory is kept while work is seen there, and some minutes after; what did not answer stays as it was. */
  #settleElsewhere(looks: NonNullable<ProbeOutcome['elsewhere']>, nowMs: number): void {
    const others = new Map(this.#others);
    const answered = [...looks].filter(([, { learnt }]) => learnt.status !== undefined).map(([name]) => name);
    this.askedElsewhere = [...this.askedElsewhere, ...answered];
    for (const [directory, { learnt, missing, isForeign }] of looks) {
      const before = isForeign ? undefined : others.get(directory);
      const known = updateOverview(before, learnt, missing, nowMs);
      const isIdle = known?.parts.status?.running.length === 0;
      const isRecent = this.known?.parts.recent?.sessions.has(directory) === true;
      if (known === undefined || (isIdle && !(isRecent && before !== undefined))) others.delete(directory);
      else others.set(directory, known);
      if (isIdle || isForeign) this.#visited.delete(directory);
    }
    this.#others = others;
  }

  /** Of OpenCode 2, which tells at once of all its directories that were used lately, and of what runs in any. */
  #settleService(
    { missing, isWhole = true }: ProbeOutcome,
    looks: NonNullable<ProbeOutcome['elsewhere']>,
    nowMs: number,
  ): void {
    const others = new Map<string, KnownOverview>();
    for (const [directory, known] of isWhole ? [] : this.#others)
      if (!looks.has(directory)) others.set(directory, restingBehind(known, missing, nowMs));
    for (const [directory, { learnt }] of looks) {
      const known = updateOverview(this.#others.get(directory), learnt, missing, nowMs);
      if (known !== undefined) others.set(directory, known);
    }
    this.#others = others;
  }

  #measure(ms: number): void {
    const mean = this.#meanLatencyMs ?? ms;
    this.#meanLatencyMs = mean + (ms - mean) * LATENCY_WEIGHT;
    const known = this.latencyMs ?? 0;
    const changed = this.#meanLatencyMs > known * LATENCY_CHANGE || this.#meanLatencyMs * LATENCY_CHANGE < known;
    if (this.latencyMs === undefined || changed) this.latencyMs = Math.round(this.#meanLatencyMs);
  }

  /** As it is now, for a snapshot that must not change afterwards. */
  copy(): ProbedEndpoint {
    const {
      id,
      candidate,
      result,
      probedAtMs,
      lastSeenMs,
      latencyMs,
      unsteady,
      misses,
      lastHealthy,
      known,
      elsewhere,
      connection,
    } = this;
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
      ...(known === undefined ? {} : { overview: known.overview }),
      ...(elsewhere === undefined ? {} : { elsewhere }),
    };
  }
}

/** For a directory of OpenCode 2 with none of the latest sessions: running sessions are listed wherever they are, so nothing runs here. */
function restingBehind(known: KnownOverview, missing: readonly OverviewPart[], nowMs: number): KnownOverview {
  const { session } = known.parts;
  const isOld = known.parts.isOld === true || nowMs - (session?.updatedMs ?? 0) > LATELY_MS;
  const status = { activity: { kind: 'idle' }, running: [] } as const;
  const learnt = missing.includes('status') ? { isOld } : { isOld, status, permissions: [], questions: [] };
  return updateOverview(known, learnt, [], nowMs) ?? known;
}

export interface TableChange {
  /** New or registered again: to be probed at once. */
  readonly added: readonly EndpointRecord[];
  /** Its watcher says something else of it. */
  readonly reported: readonly EndpointRecord[];
  readonly removed: readonly EndpointRecord[];
  /** Something that is shown is different. */
  readonly changed: boolean;
}

/** Every endpoint that a source reports now. */
export class EndpointTable {
  readonly #records = new Map<string, EndpointRecord>();
  readonly #bySource = new Map<string, Set<string>>();
  readonly #byKey = new Map<string, Set<EndpointRecord>>();

  get size(): number {
    return this.#records.size;
  }

  all(): IterableIterator<EndpointRecord> {
    return this.#records.values();
  }

  get(id: string): EndpointRecord | undefined {
    return this.#records.get(id);
  }

  /** The records of what a snapshot showed, without what is no longer registered. */
  recordsOf(endpoints: readonly ProbedEndpoint[]): readonly EndpointRecord[] {
    return endpoints.flatMap(({ id }) => this.#records.get(id) ?? []);
  }

  /** What is registered for that address. */
  at(key: string): Iterable<EndpointRecord> {
    return this.#byKey.get(key) ?? [];
  }

  /** Whether anything registered for that address is healthy. */
  isHealthy(key: string): boolean {
    for (const record of this.at(key)) if (record.healthy) return true;
    return false;
  }

  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  /**
   * Tells whether a directory is another server's own on the machine of a record, by what is registered now and not long dead, and
   * nothing there looks interrupted: it may run in any process of that home. What nobody vouches for could hide work by its claim.
   * Worktrees of a project are for the servers of that project, where there is one: each server of a home would load them all.
   */
  takenDirectories(): (record: EndpointRecord, directory: string) => boolean {
    const placeOf = ({ candidate: { claims, endpoint } }: EndpointRecord, directory: string | undefined): string =>
      `${hostKey(claims.hostname ?? addressOf(endpoint.url).host)}\0${directory}`;
    const isNodeUser = (one: EndpointRecord): boolean =>
      !one.unlisted && isVouchedFor(one.candidate) && one.known?.parts.session?.rest?.state !== 'interrupted';
    const owners = [...this.all()].filter(isNodeUser);
    const taken = new Set(
      owners.map((one) => placeOf(one, one.lastHealthy?.directory ?? one.candidate.claims.directory)),
    );
    const projects = new Set(owners.map((one) => placeOf(one, one.known?.parts.recent?.ownProject)));
    const isOfOthers = (record: EndpointRecord, directory: string): boolean => {
      const { ownProject, sessions } = record.known?.parts.recent ?? {};
      const project = sessions?.get(directory)?.projectId;
      return [ownProject, project].every(Boolean) && ownProject !== project && projects.has(placeOf(record, project));
    };
    return (record, directory) => taken.has(placeOf(record, directory)) || isOfOthers(record, directory);
  }

  /** Makes the table hold exactly `candidates` of that source. Of equal keys the first counts. */
  apply(source: string, candidates: readonly Candidate[]): TableChange {
    const before = this.#bySource.get(source) ?? new Set<string>();
    const now = new Set<string>();
    const added: EndpointRecord[] = [];
    const removed: EndpointRecord[] = [];
    const reported: EndpointRecord[] = [];
    let changed = false;
    for (const candidate of candidates) {
      const id = `${source}:${candidate.key}`;
      if (now.has(id)) continue;
      now.add(id);
      const known = this.#records.get(id);
      if (known !== undefined && samePlace(known.candidate, candidate)) {
        changed ||=
          !sameClaims(known.candidate.claims, candidate.claims) || known.candidate.pinned !== candidate.pinned;
        if (candidate.report !== undefined && candidate.report !== known.candidate.report) reported.push(known);
        known.candidate = candidate;
        continue;
      }
      const record = new EndpointRecord(id, candidate, known?.listed);
      if (known !== undefined) {
        removed.push(this.#remove(known));
        if (isSame(identityOf(known.candidate), identityOf(candidate))) record.takeElsewhere(known);
      }
      added.push(this.#add(record));
    }
    for (const id of before) {
      const record = now.has(id) ? undefined : this.#records.get(id);
      if (record !== undefined) removed.push(this.#remove(record));
    }
    this.#bySource.set(source, now);
    return { added, removed, reported, changed: changed || added.length > 0 || removed.length > 0 };
  }

  #add(record: EndpointRecord): EndpointRecord {
    this.#records.set(record.id, record);
    const group = this.#byKey.get(record.key);
    if (group === undefined) this.#byKey.set(record.key, new Set([record]));
    else group.add(record);
    return record;
  }

  #remove(record: EndpointRecord): EndpointRecord {
    this.#records.delete(record.id);
    const group = this.#byKey.get(record.key);
    group?.delete(record);
    if (group?.size === 0) this.#byKey.delete(record.key);
    return record;
  }
}

/** Whether what was found by one holds for the other: one address, one process as far as it is told, one way to ask it. */
function samePlace(one: Candidate, other: Candidate): boolean {
  if (one === other) return true;
  return (
    endpointKey(one.endpoint) === endpointKey(other.endpoint) &&
    one.endpoint.route === other.endpoint.route &&
    one.claims.id === other.claims.id &&
    one.claims.directory === other.claims.directory &&
    one.claims.connectedAt === other.claims.connectedAt &&
    JSON.stringify([one.trust, one.credential, one.claims.service]) ===
      JSON.stringify([other.trust, other.credential, other.claims.service])
  );
}

function sameClaims(one: Claims, other: Claims): boolean {
  return one.name === other.name && one.hostname === other.hostname && one.localPort === other.localPort;
}

import type { Candidate, Claims } from '../model/candidate.ts';
import { addressOf, endpointKey } from '../model/endpoint-key.ts';
import type { ProbedEndpoint } from '../model/instance.ts';
import { hostKey } from '../identity/default-name.ts';
import { isSame } from '../identity/names.ts';
import { identityOf, isVouchedFor } from '../identity/naming.ts';
import { EndpointRecord } from './endpoint-record.ts';

export interface TableChange {
  /** New or changed registrations, to be probed immediately. */
  readonly added: readonly EndpointRecord[];
  /** Endpoints whose watcher's report changed. */
  readonly reported: readonly EndpointRecord[];
  readonly removed: readonly EndpointRecord[];
  /** Whether a snapshot shows a difference. */
  readonly changed: boolean;
}

/** Whether a directory is another server's own, on the machine of that endpoint. */
export type IsTaken = (record: EndpointRecord, directory: string) => boolean;

/** Every endpoint that a source reports now. */
export class EndpointTable {
  readonly #records = new Map<string, EndpointRecord>();
  readonly #bySource = new Map<string, Set<string>>();
  readonly #byKey = new Map<string, Set<EndpointRecord>>();

  all(): IterableIterator<EndpointRecord> {
    return this.#records.values();
  }

  get(id: string): EndpointRecord | undefined {
    return this.#records.get(id);
  }

  /** The records behind a snapshot's endpoints, without those that are no longer registered. */
  recordsOf(endpoints: readonly ProbedEndpoint[]): readonly EndpointRecord[] {
    return endpoints.flatMap(({ id }) => this.#records.get(id) ?? []);
  }

  /** Every record of one address. */
  at(key: string): Iterable<EndpointRecord> {
    return this.#byKey.get(key) ?? [];
  }

  /** Whether any record of that address is healthy. */
  isHealthy(key: string): boolean {
    for (const record of this.at(key)) if (record.healthy) return true;
    return false;
  }

  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  /**
   * Which directories belong to which server, as registered now. Not counted: servers that are long dead, LAN announcements and untrusted
   * registrations (their claims could hide work), and servers with an interrupted session, which may run in any process of that home. A
   * project's worktrees belong to its servers if it has any; otherwise each server of a home would load them all.
   */
  takenDirectories(): IsTaken {
    const owners = [...this.all()].filter(ownsDirectory);
    const taken = new Set(
      owners.map((one) => placeOf(one, one.lastHealthy?.directory ?? one.candidate.claims.directory)),
    );
    const projects = new Set(owners.map((one) => placeOf(one, one.known?.parts.recent?.ownProject)));
    const isWorktreeOfOthers = (record: EndpointRecord, directory: string): boolean => {
      const { ownProject, sessions } = record.known?.parts.recent ?? {};
      const project = sessions?.get(directory)?.projectId;
      return [ownProject, project].every(Boolean) && ownProject !== project && projects.has(placeOf(record, project));
    };
    return (record, directory) => taken.has(placeOf(record, directory)) || isWorktreeOfOthers(record, directory);
  }

  /** Makes `candidates` the only entries of that source. Of equal keys the first counts. */
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
        if (isSame(identityOf(known.candidate), identityOf(candidate))) record.directories.merge(known.directories);
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
    const group = this.#byKey.get(record.key) ?? new Set<EndpointRecord>();
    this.#byKey.set(record.key, group.add(record));
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

function ownsDirectory(record: EndpointRecord): boolean {
  const isInterrupted = record.known?.parts.session?.rest?.state === 'interrupted';
  return !record.unlisted && isVouchedFor(record.candidate) && !isInterrupted;
}

/** A directory or project on the machine of that endpoint. */
function placeOf({ candidate: { claims, endpoint } }: EndpointRecord, what: string | undefined): string {
  return `${hostKey(claims.hostname ?? addressOf(endpoint.url).host)}\0${what}`;
}

/** Whether the same registration leads to the same process in the same way, so that what is known of it stays valid. */
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

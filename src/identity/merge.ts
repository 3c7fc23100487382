import { type Claims, type Note, ROUTES } from '../model/candidate.ts';
import { quoteName } from '../base/plain-text.ts';
import { endpointKey } from '../model/endpoint-key.ts';
import type { ProbedEndpoint, Server } from '../model/instance.ts';
import { compare, groupBy, type NonEmpty, sortNonEmpty } from '../model/non-empty.ts';

/** Two endpoint keys. */
export type KeyPair = readonly [string, string];

/** Endpoints with different addresses that lead to one process. */
export interface ProofSet {
  /** Both endpoints have been healthy since. */
  readonly proven: readonly KeyPair[];
  /** One endpoint went unhealthy since; newest first. They keep it with its instance, and never join two healthy endpoints. */
  readonly former: readonly KeyPair[];
}

export interface Merged {
  /** Sorted by key. */
  readonly servers: readonly Server[];
  /** Registrations left out, since they contradict a better one for the same address. */
  readonly notes: readonly Note[];
}

/** Consistent registrations of one address; a person has one or two. */
const MAX_PER_ADDRESS = 16;

/** In ms. Endpoints within one step count as equally fast, so that their order does not change with every probe. */
const LATENCY_STEPS = [10, 50, 200, 1000];

/** Joins endpoints that have one address, or are proven to lead to one process. Pure; the order of the inputs does not matter. */
export function merge(probed: readonly ProbedEndpoint[], proofs: ProofSet): Merged {
  const notes: Note[] = [];
  const trusted = probed.filter(({ candidate }) => candidate.trust.level === 'trusted');
  const groups = new Map<string, NonEmpty<ProbedEndpoint>>();
  for (const [key, group] of groupBy(trusted, ({ candidate }) => endpointKey(candidate.endpoint))) {
    groups.set(key, consistent(group, notes));
  }
  const servers = [...join(groups, proofs)].map(serverOf);
  // An untrusted endpoint must not lend its claims to another.
  for (const endpoint of probed) if (endpoint.candidate.trust.level === 'untrusted') servers.push(serverOf([endpoint]));
  return {
    servers: servers.toSorted((one, other) => compare(one.key, other.key)),
    notes: notes.toSorted((one, other) => compare(one.subject + one.reason, other.subject + other.reason)),
  };
}

/** Leaves out endpoints that contradict a better one for the same address. */
function consistent(group: NonEmpty<ProbedEndpoint>, notes: Note[]): NonEmpty<ProbedEndpoint> {
  const [best, ...others] = sortNonEmpty(group, byCredibility);
  const kept: [ProbedEndpoint, ...ProbedEndpoint[]] = [best];
  for (const endpoint of others) {
    const rival = kept.find((other) => contradicts(endpoint, other));
    if (rival === undefined && kept.length < MAX_PER_ADDRESS) kept.push(endpoint);
    else notes.push(leftOut(endpoint, rival ?? best));
  }
  return kept;
}

/** Whether two registrations cannot both be right about one address. A configured name is a person's label and contradicts nothing. */
function contradicts(first: ProbedEndpoint, second: ProbedEndpoint): boolean {
  const [one, other] = [first.candidate, second.candidate];
  if ((isService(first) && isOpencode1(second)) || (isService(second) && isOpencode1(first))) return true;
  if (one.claims.id !== undefined && other.claims.id !== undefined) return one.claims.id !== other.claims.id;
  const differ = (field: 'name' | 'directory'): boolean =>
    one.claims[field] !== undefined && other.claims[field] !== undefined && one.claims[field] !== other.claims[field];
  return differ('directory') || (one.pinned === other.pinned && differ('name'));
}

/** A service file that is left behind may name a port that an OpenCode 1 holds by now. */
function isService({ candidate, result }: ProbedEndpoint): boolean {
  return candidate.claims.service !== undefined || (result.status === 'healthy' && result.dialect !== 'opencode-1');
}

function isOpencode1({ result }: ProbedEndpoint): boolean {
  return result.status === 'healthy' && result.dialect === 'opencode-1';
}

function leftOut(endpoint: ProbedEndpoint, rival: ProbedEndpoint): Note {
  const name = ({ candidate, id }: ProbedEndpoint): string => quoteName(candidate.claims.name ?? id);
  return {
    subject: name(endpoint),
    reason: `left out: ${name(rival)} is registered for the same address, ${endpoint.candidate.endpoint.url}, and is the newer one or the one that answers`,
  };
}

function byCredibility(one: ProbedEndpoint, other: ProbedEndpoint): number {
  return (
    Number(other.candidate.pinned ?? false) - Number(one.candidate.pinned ?? false) ||
    Number(isHealthy(other)) - Number(isHealthy(one)) ||
    (other.candidate.claims.connectedAt ?? 0) - (one.candidate.claims.connectedAt ?? 0) ||
    compare(one.id, other.id)
  );
}

/** Joins the groups of different addresses that a proof connects. */
function join(
  groups: ReadonlyMap<string, NonEmpty<ProbedEndpoint>>,
  proofs: ProofSet,
): Iterable<NonEmpty<ProbedEndpoint>> {
  const parents = new Map<string, string>();
  const live = new Set<string>();
  for (const [key, group] of groups) if (group.some(isHealthy)) live.add(key);
  const root = (key: string): string => {
    let at = key;
    for (let parent = parents.get(at); parent !== undefined; parent = parents.get(at)) at = parent;
    if (at !== key) parents.set(key, at);
    return at;
  };
  const unite = ([one, other]: KeyPair): void => {
    const from = root(one);
    const to = root(other);
    if (from === to) return;
    parents.set(to, from);
    if (live.has(to)) live.add(from);
  };
  for (const pair of proofs.proven) if (pair.every((key) => live.has(key))) unite(pair);
  // An unhealthy endpoint must not join two healthy ones: one of them may lead elsewhere since the proof.
  for (const pair of proofs.former) {
    if (pair.every((key) => groups.has(key)) && !pair.every((key) => live.has(root(key)))) unite(pair);
  }
  const joined = new Map<string, [ProbedEndpoint, ...ProbedEndpoint[]]>();
  for (const [key, group] of groups) {
    const together = joined.get(root(key));
    if (together === undefined) joined.set(root(key), [...group]);
    else together.push(...group);
  }
  return joined.values();
}

function serverOf(endpoints: NonEmpty<ProbedEndpoint>): Server {
  const sorted = sortNonEmpty(endpoints, byPreference);
  // Empty for an OpenCode 2, which has none of its own.
  const directory = sorted.find(({ lastHealthy }) => lastHealthy !== undefined)?.lastHealthy?.directory || undefined;
  return {
    key: endpoints.map(({ id }) => id).reduce((least, id) => (compare(id, least) < 0 ? id : least)),
    claims: claimsOf(endpoints),
    endpoints: sorted,
    ...(directory !== undefined && { directory }),
  };
}

/** Healthy endpoints first, then steady ones, then the better route, then the faster endpoint. */
export function byPreference(one: ProbedEndpoint, other: ProbedEndpoint): number {
  return (
    RESULT_RANK[one.result.status] - RESULT_RANK[other.result.status] ||
    Number(one.unsteady ?? false) - Number(other.unsteady ?? false) ||
    routeRank(one) - routeRank(other) ||
    latencyRank(one) - latencyRank(other) ||
    compare(one.id, other.id)
  );
}

const RESULT_RANK = { healthy: 0, locked: 1, unsupported: 2, unhealthy: 3, unknown: 4, untrusted: 5 } as const;

/**
 * The most trustworthy claims first. Does not depend on health, so that an instance keeps its name while its endpoints come and
 * go. LAN announcements come last: anyone can make them.
 */
export function byAuthority(one: ProbedEndpoint, other: ProbedEndpoint): number {
  return (
    Number(other.candidate.pinned ?? false) - Number(one.candidate.pinned ?? false) ||
    Number(one.candidate.endpoint.route === 'lan') - Number(other.candidate.endpoint.route === 'lan') ||
    Number(one.candidate.claims.id === undefined) - Number(other.candidate.claims.id === undefined) ||
    routeRank(one) - routeRank(other) ||
    compare(one.id, other.id)
  );
}

function claimsOf(endpoints: NonEmpty<ProbedEndpoint>): Claims {
  // Of entries with the same key, the last one counts.
  const entries = endpoints
    .toSorted(byAuthority)
    .toReversed()
    .flatMap(({ candidate }) => Object.entries(candidate.claims));
  const claims: Claims = Object.fromEntries(entries.filter(([, value]) => value !== undefined));
  const times = endpoints.map(({ candidate }) => candidate.claims.connectedAt).filter((time) => time !== undefined);
  return times.length === 0 ? claims : { ...claims, connectedAt: Math.max(...times) };
}

export function isHealthy(endpoint: ProbedEndpoint): boolean {
  return endpoint.result.status === 'healthy';
}

function routeRank({ candidate }: ProbedEndpoint): number {
  return ROUTES.indexOf(candidate.endpoint.route);
}

function latencyRank({ latencyMs }: ProbedEndpoint): number {
  const rank = LATENCY_STEPS.findIndex((step) => (latencyMs ?? Infinity) < step);
  return rank === -1 ? LATENCY_STEPS.length : rank;
}

import { basename } from 'node:path/posix';
import type { Candidate } from '../model/candidate.ts';
import { singleLine } from '../base/plain-text.ts';
import { addressOf } from '../model/endpoint-key.ts';
import type { Instance, MergedInstance, ProbedEndpoint } from '../model/instance.ts';
import { byAuthority } from './merge.ts';
import { type Member, type Nameable, possibleNames } from './names.ts';
import { mapNonEmpty, type NonEmpty, sortNonEmpty } from '../model/non-empty.ts';

const MAX_HOST_CHARS = 64;
const MAX_NAME_CHARS = 128;

/** What naming needs to know of an instance. */
export function nameable(instance: MergedInstance): Nameable {
  const members = sortNonEmpty(instance.endpoints, byAuthority);
  const { claims, endpoints } = instance;
  return {
    key: instance.key,
    members: mapNonEmpty(members, ({ id, candidate }): Member => ({ id, ...identityOf(candidate) })),
    base: claims.name ?? fallbackName(members),
    host: hostOf(instance),
    port: claims.localPort ?? addressOf(members[0].candidate.endpoint.url).port,
    pinned: members.some(({ candidate }) => candidate.pinned === true),
    alive: endpoints.some(
      ({ result }) => result.status !== 'unhealthy' && result.status !== 'unknown' && result.status !== 'untrusted',
    ),
    plain: members.some(({ candidate }) => isVouchedFor(candidate)),
    ...(claims.id === undefined ? {} : { processId: claims.id }),
  };
}

/**
 * Every name that an instance has or had, for rules that name it: those it was shown under, and what it could be called by
 * any of its endpoints. Of a name that none of these claims any more, also what stands before its port and its host.
 */
export function namesOf(instance: Instance): readonly string[] {
  const { key, name, aliases = [], endpoints } = instance;
  const alone = endpoints.map((endpoint) => ({
    key,
    claims: endpoint.candidate.claims,
    endpoints: [endpoint] as const,
  }));
  const names = new Set([instance, ...alone].flatMap((one) => possibleNames(nameable(one))));
  for (const shown of [name, ...aliases]) {
    if (names.has(shown)) continue;
    names
      .add(shown)
      .add(shown.replace(/(@.*):\d+(?:#\d+)?$/, '$1'))
      .add(shown.replace(/@[^@]*$/, ''));
  }
  return [...names];
}

export function hostOf({ claims, endpoints }: MergedInstance): string {
  return (claims.hostname ?? addressOf(endpoints[0].candidate.endpoint.url).host).slice(0, MAX_HOST_CHARS);
}

/** What tells whether an endpoint still leads to the instance that it was shown with. */
export function identityOf(candidate: Candidate): Omit<Member, 'id'> {
  const { id } = candidate.claims;
  return { lineage: lineageOf(candidate), ...(id !== undefined && isVouchedFor(candidate) && { processId: id }) };
}

/**
 * What makes a re-appearing instance the same one: a configured name and its URL, else the claimed name, host and
 * directory. What anyone can advertise and what nobody vouches for are lineages of their own: they never take a name back
 * that was another's.
 */
function lineageOf(candidate: Candidate): string {
  const { claims, endpoint, pinned } = candidate;
  if (pinned) return ['pinned', claims.name ?? '', endpoint.url].join('\0');
  const host = claims.hostname?.toLowerCase() ?? addressOf(endpoint.url).host;
  return [isVouchedFor(candidate) ? 'known' : 'advertised', claims.name ?? '', host, claims.directory ?? ''].join('\0');
}

/** Not what anyone on the LAN can advertise, nor what lies where others can write. */
export function isVouchedFor({ trust, endpoint, pinned }: Candidate): boolean {
  return trust.level === 'trusted' && (endpoint.route !== 'lan' || pinned === true);
}

function fallbackName(endpoints: NonEmpty<ProbedEndpoint>): string {
  for (const { candidate, lastHealthy } of endpoints) {
    const name = basename((candidate.claims.directory ?? lastHealthy?.directory ?? '').replaceAll('\\', '/'));
    if (name !== '') return singleLine(name, MAX_NAME_CHARS);
  }
  return `opencode-${addressOf(endpoints[0].candidate.endpoint.url).port}`;
}

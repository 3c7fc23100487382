import { basename } from 'node:path/posix';
import type { Candidate } from '../model/candidate.ts';
import { singleLine } from '../base/plain-text.ts';
import { addressOf } from '../model/endpoint-key.ts';
import type { Instance, ProbedEndpoint, Server } from '../model/instance.ts';
import { defaultName, ending, hostLabel, serviceName } from './default-name.ts';
import { byAuthority } from './merge.ts';
import { type Member, type Nameable, possibleNames } from './names.ts';
import { mapNonEmpty, type NonEmpty, sortNonEmpty } from '../model/non-empty.ts';

const MAX_HOST_CHARS = 64;
const MAX_NAME_CHARS = 128;
/** Parts of a path in one name. Names that are still equal get the port, or a number. */
const MAX_PARTS = 4;

/** A server in its own directory, for naming. */
export function nameable(server: Server): Nameable {
  const members = sortNonEmpty(server.endpoints, byAuthority);
  const { claims, endpoints } = server;
  return {
    key: server.key,
    members: mapNonEmpty(members, ({ id, candidate }): Member => ({ id, ...identityOf(candidate) })),
    base: claims.name ?? (claims.service === undefined ? fallbackName(members) : serviceName(hostOf(server))),
    host: hostOf(server),
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
 * A server in another directory, for naming. Its key and ids end in the directory.
 *
 * @param endings of all directories of that server
 */
export function nameableIn(server: Server, directory: string, endings: Endings): Nameable {
  return inDirectory(server, directory, distinctEnding(directory, endings));
}

/** `lastPart` distinguishes its name from those of the server's other directories. */
function inDirectory(server: Server, directory: string, lastPart: string): Nameable {
  const own = nameable(server);
  return {
    ...own,
    key: within(directory, own.key),
    members: mapNonEmpty(own.members, (member) => memberIn(directory, member)),
    base: [prefixOf(server), lastPart].filter((part) => part !== '').join('-'),
    ...(own.processId !== undefined && { processId: within(directory, own.processId) }),
  };
}

function memberIn(directory: string, { id, lineage, processId }: Member): Member {
  return {
    id: within(directory, id),
    lineage: within(directory, lineage),
    ...(processId !== undefined && { processId: within(directory, processId) }),
  };
}

function within(directory: string, identity: string): string {
  return `${identity}\0${directory}`;
}

/** The endpoint and the lineage of a member's server, and the directory if it is not the server's own. */
export function placeOf({ id, lineage }: Member): {
  readonly endpointId: string;
  readonly lineage: string;
  readonly directory?: string;
} {
  const [endpointId = '', directory] = id.split('\0');
  if (directory === undefined) return { endpointId, lineage };
  return { endpointId, lineage: lineage.slice(0, -within(directory, '').length), directory };
}

/** A chosen name is kept whole. In a default name, `<host>-<directory>`, another directory replaces the own one. */
function prefixOf({ claims, directory = claims.directory }: Server): string {
  const { name = '', hostname = '' } = claims;
  if (name === '' ? claims.service !== undefined : name.toLowerCase() === serviceName(hostname).toLowerCase())
    return hostLabel(hostname);
  const isMadeUp = directory !== undefined && name.toLowerCase() === defaultName(hostname, directory).toLowerCase();
  return isMadeUp ? hostLabel(hostname) : name;
}

/** How many directories have an ending, by number of parts and text. Counted once, since a service has up to a thousand. */
export type Endings = ReadonlyMap<string, number>;

export function endingsOf(directories: readonly string[]): Endings {
  const endings = new Map<string, number>();
  for (const directory of new Set(directories)) {
    for (let count = 1; count <= MAX_PARTS; count += 1) {
      const key = `${count}\0${ending(directory, count)}`;
      endings.set(key, (endings.get(key) ?? 0) + 1);
    }
  }
  return endings;
}

/** The shortest ending that no other directory has: `app`, or `feature-app` beside `/src/app`. */
function distinctEnding(directory: string, endings: Endings): string {
  for (let count = 1; count <= MAX_PARTS; count += 1) {
    const own = ending(directory, count);
    if (own !== '' && (endings.get(`${count}\0${own}`) ?? 0) <= 1) return own;
  }
  return ending(directory, 1) || 'root';
}

/**
 * Every name that a server in `directory` has, had or could get by any of its endpoints, for rules that name it. A shown name that is not
 * among them also counts without its port, and without its host.
 *
 * @param shownAs the instances of that server that are or were its own directory or `directory`
 */
export function namesOf(
  server: Server,
  shownAs: readonly Pick<Instance, 'name' | 'aliases'>[],
  directory = server.directory,
): readonly string[] {
  const alone = server.endpoints.map((endpoint) => ({
    ...server,
    claims: endpoint.candidate.claims,
    endpoints: [endpoint] as const,
  }));
  const names = new Set(
    [server, ...alone].flatMap((one) => [nameable(one), ...elsewhere(one, directory)].flatMap(possibleNames)),
  );
  for (const shown of shownAs.flatMap(({ name, aliases = [] }) => [name, ...aliases])) {
    if (names.has(shown)) continue;
    names
      .add(shown)
      .add(shown.replace(/(@.*):\d+(?:#\d+)?$/, '$1'))
      .add(shown.replace(/@[^@]*$/, ''));
  }
  return [...names];
}

/** The server in another directory, with every possible number of path parts in its name. */
function elsewhere(server: Server, directory: string | undefined): readonly Nameable[] {
  if (directory === undefined || directory === server.directory) return [];
  return Array.from({ length: MAX_PARTS }, (_, index) =>
    inDirectory(server, directory, ending(directory, index + 1) || 'root'),
  );
}

export function hostOf({ claims, endpoints }: Server): string {
  return (claims.hostname ?? addressOf(endpoints[0].candidate.endpoint.url).host).slice(0, MAX_HOST_CHARS);
}

/** What `isSame` compares. */
export function identityOf(candidate: Candidate): Omit<Member, 'id'> {
  const { id } = candidate.claims;
  return { lineage: lineageOf(candidate), ...(id !== undefined && isVouchedFor(candidate) && { processId: id }) };
}

/**
 * What a restarted server keeps: a configured name and its URL, or else the claimed name, host and directory. LAN advertisements and untrusted registrations have
 * lineages of their own, so that they never take another's name.
 */
function lineageOf(candidate: Candidate): string {
  const { claims, endpoint, pinned } = candidate;
  if (pinned) return ['pinned', claims.name ?? '', endpoint.url].join('\0');
  const host = claims.hostname?.toLowerCase() ?? addressOf(endpoint.url).host;
  return [isVouchedFor(candidate) ? 'known' : 'advertised', claims.name ?? '', host, claims.directory ?? ''].join('\0');
}

/** False for LAN advertisements, which anyone can make, and for registrations where others can write. */
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

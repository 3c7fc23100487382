import type { Clock } from '../../base/clock.ts';
import type { Dial } from '../../base/dial.ts';
import { quoted, quoteName, sentence, singleLine } from '../../base/plain-text.ts';
import { type Exchange, exchangeAny, RequestError } from '../../http/exchange.ts';
import type { TailnetNode } from '../../tailscale/types.ts';
import {
  isHealth,
  type ListedInstance,
  type ListedService,
  LIST_PATH,
  type PeerList,
  readPeerList,
  STATES_PATH,
} from './peer-list.ts';
import type { Candidate, Claims, Note } from '../../model/candidate.ts';
import type { ReportedServer } from '../../model/report.ts';

export const TAILSCALE_SOURCE = 'tailscale';

/** How to reach one peer. */
export interface PeerSite {
  readonly node: TailnetNode;
  readonly address: string;
  /** Set if tailscaled has no TUN. */
  readonly dial: Dial | undefined;
}

export interface PeerDeps {
  readonly nodePort: number;
  /** Ports to try for an opencode without a node service. */
  readonly ports: readonly number[];
  readonly clock: Clock;
}

/** The last list of a peer, for a conditional request. */
export interface KnownList {
  readonly path: string;
  readonly etag: string;
}

export interface PeerQuestion {
  /** Ask for the list with states first; after a 404 for the list without. */
  readonly mayHaveStates: boolean;
  readonly known?: KnownList | undefined;
  /** How long the peer may hold its answer while its list equals the known one; 0 for an immediate answer. */
  readonly waitMs: number;
}

export interface PeerFinding {
  /**
   * - `service`: the node service's list
   * - `unchanged`: its list is the known one
   * - `bare`: no node service, but an opencode on one of the ports
   * - `forbidden`: its node service does not admit this machine
   * - `refused`, `silent`: nothing usable
   */
  readonly kind: 'service' | 'unchanged' | 'bare' | 'forbidden' | 'refused' | 'silent';
  readonly candidates: readonly Candidate[];
  readonly notes: readonly Note[];
  /** By candidate key: the state of each server that the node service watches. */
  readonly states?: ReadonlyMap<string, ReportedServer>;
  /** The node service has no list with states. */
  readonly isWithoutStates?: true;
  /** The path of the list. */
  readonly path?: string;
  /** The list's entity tag; without one, the service cannot hold its answer. */
  readonly etag?: string;
}

/** Over DERP, while a path is being negotiated, an answer takes more than a second; a machine that is off never answers. */
const PEER_TIMEOUT_MS = 3000;

/** Room for 200 instances with the longest directories; a node service limits its states to the same size. */
const MAX_LIST_BYTES = 1024 * 1024;
const MAX_HEALTH_BYTES = 16 * 1024;

const MAX_SUBJECT_CHARS = 253;
const MAX_REASON_CHARS = 300;

/** RFC 9110, 8.8.3, bounded. It is sent back in a header. */
const ETAG = /^(?:W\/)?"[\x21\x23-\x7e]{1,128}"$/;

/** Asks a peer's node service for its list; without one, tries the configured ports for an opencode. Rejects only if the signal aborts. */
export async function findOn(
  site: PeerSite,
  deps: PeerDeps,
  signal: AbortSignal,
  question: PeerQuestion,
): Promise<PeerFinding> {
  const listed = await listOf(site, deps, signal, question);
  if (listed.kind !== 'refused' && listed.kind !== 'silent') return listed;
  const bare = await Promise.all(deps.ports.map((port) => isOpencode(site, port, deps, signal)));
  const candidates = deps.ports.flatMap((port, index) => (bare[index] === true ? [bareCandidate(site, port)] : []));
  return candidates.length > 0 ? { kind: 'bare', candidates, notes: listed.notes } : listed;
}

/** The peer's name in the tailnet, which the control server assigns, unlike its host name. */
export function peerName({ dnsName, hostName, id }: TailnetNode): string {
  return singleLine(dnsName.split('.', 1)[0] || hostName || id, MAX_SUBJECT_CHARS);
}

async function listOf(
  site: PeerSite,
  deps: PeerDeps,
  signal: AbortSignal,
  question: PeerQuestion,
): Promise<PeerFinding> {
  const { mayHaveStates, known } = question;
  try {
    if (mayHaveStates) {
      const answer = await askForList(site, deps, signal, { ...question, path: STATES_PATH });
      if (answer.status !== 404) return listFinding(site, deps, answer, { path: STATES_PATH, known });
    }
    const answer = await askForList(site, deps, signal, { ...question, path: LIST_PATH });
    const finding = listFinding(site, deps, answer, { path: LIST_PATH, known });
    return mayHaveStates ? { ...finding, isWithoutStates: true } : finding;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RequestError && (error.kind === 'malformed' || error.kind === 'too-large'))
      return nothing('refused', [note(site, deps, error.message)]);
    return nothing(isRefusal(error) ? 'refused' : 'silent');
  }
}

/** The finding of an answer to a request for the list at `path`. */
function listFinding(
  site: PeerSite,
  deps: PeerDeps,
  answer: Exchange,
  { path, known }: Pick<PeerQuestion, 'known'> & { readonly path: string },
): PeerFinding {
  if (answer.status === 304 && known?.path === path) return nothing('unchanged');
  if (answer.status === 403) return nothing('forbidden', [note(site, deps, refusalOf(answer))]);
  const list = answer.status === 200 ? readPeerList(answer.text) : { problem: `answered HTTP ${answer.status}` };
  if ('problem' in list) return nothing('refused', [note(site, deps, list.problem)]);
  const { etag } = answer.headers;
  const tag = etag !== undefined && ETAG.test(etag) && { etag };
  return { ...serviceFinding(site, deps, list), path, ...tag };
}

function nothing(kind: 'unchanged' | 'forbidden' | 'refused' | 'silent', notes: readonly Note[] = []): PeerFinding {
  return { kind, candidates: [], notes };
}

function serviceFinding(site: PeerSite, deps: PeerDeps, list: Exclude<PeerList, { problem: string }>): PeerFinding {
  const { instances, services, leftOut } = list;
  const keyOf = (id: string): string => `${site.node.id}/${id}`;
  const listed = ({ id, path, port }: ListedInstance | ListedService, claims: Claims): Candidate =>
    candidateOf(site, deps.nodePort, keyOf(id), path, { ...claims, ...(port !== undefined && { localPort: port }) });
  const candidates = [
    ...instances.map((one) => {
      const { id, name, directory } = one;
      return listed(one, { id, name, ...(directory !== undefined && { directory }) });
    }),
    // Without the id, which is unique on its own machine only.
    ...services.map((one) => {
      const { version, isPreview } = one;
      return listed(one, { service: { ...(version !== undefined && { version }), ...(isPreview && { isPreview }) } });
    }),
  ];
  const notes = leftOut > 0 ? [note(site, deps, `${leftOut} entries of its list are invalid and left out`)] : [];
  const states = new Map([...list.states].map(([id, state]) => [keyOf(id), state]));
  return { kind: 'service', candidates, notes, states };
}

function askForList(
  site: PeerSite,
  deps: PeerDeps,
  signal: AbortSignal,
  { path, known, waitMs: longestMs }: PeerQuestion & { readonly path: string },
): Promise<Exchange> {
  const etag = known?.path === path ? known.etag : undefined;
  const waitMs = etag === undefined ? 0 : longestMs;
  const headers = {
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(waitMs > 0 && { prefer: `wait=${Math.ceil(waitMs / 1000)}` }),
  };
  const limits = { timeoutMs: waitMs + PEER_TIMEOUT_MS, maxBytes: MAX_LIST_BYTES, clock: deps.clock, signal };
  return askPeer(site, deps.nodePort, path, limits, headers);
}

async function isOpencode(site: PeerSite, port: number, { clock }: PeerDeps, signal: AbortSignal): Promise<boolean> {
  try {
    const limits = { timeoutMs: PEER_TIMEOUT_MS, maxBytes: MAX_HEALTH_BYTES, clock, signal };
    const { status, text } = await askPeer(site, port, '/global/health', limits);
    return status === 401 || (status === 200 && isHealth(text));
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

function askPeer(
  { address, dial }: PeerSite,
  port: number,
  path: string,
  limits: Parameters<typeof exchangeAny>[1],
  headers: Readonly<Record<string, string>> = {},
): Promise<Exchange> {
  const url = originOf(address, port) + path;
  const all = { accept: 'application/json', ...headers };
  return exchangeAny({ method: 'GET', url, headers: all, pooled: false, label: 'its node service', dial }, limits);
}

function bareCandidate(site: PeerSite, port: number): Candidate {
  return candidateOf(site, port, `${site.node.id}:${port}`, '', { name: peerName(site.node), localPort: port });
}

/** The host is always the peer's own address, never one that the peer sends. */
function candidateOf(
  { node, address, dial }: PeerSite,
  port: number,
  key: string,
  path: string,
  claims: Claims,
): Candidate {
  return {
    source: TAILSCALE_SOURCE,
    key,
    endpoint: { url: originOf(address, port) + path, route: 'tailnet', ...(dial && { dial }) },
    claims: { ...claims, hostname: peerName(node) },
    trust: { level: 'trusted' },
  };
}

/** The machine is up and nothing listens, according to the system, or to tailscaled for a dialled connection. */
function isRefusal(error: unknown): boolean {
  return error instanceof Error && /ECONNREFUSED|connection (?:was )?refused/i.test(error.message);
}

function originOf(address: string, port: number): string {
  return `http://${address.includes(':') ? `[${address}]` : address}:${port}`;
}

function refusalOf({ text }: Exchange): string {
  return text.trim() === ''
    ? 'its node service does not admit this machine'
    : `its node service answered ${quoted(text, MAX_REASON_CHARS - 30)}`;
}

function note({ node }: PeerSite, { nodePort }: PeerDeps, reason: string): Note {
  return { subject: quoteName(`${peerName(node)}:${nodePort}`), reason: sentence(reason, MAX_REASON_CHARS) };
}

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
  readPeerList,
  STATES_PATH,
} from './peer-list.ts';
import type { Candidate, Claims, Note } from '../../model/candidate.ts';
import type { ReportedServer } from '../../model/report.ts';
export const TAILSCALE_SOURCE = 'tailscale';

/** Where one peer is asked, and how. */
export interface PeerSite {
  readonly node: TailnetNode;
  readonly address: string;
  /** Where tailscaled has no TUN. */
  readonly dial: Dial | undefined;
}

export interface PeerDeps {
  readonly nodePort: number;
  /** For a bare opencode. */
  readonly ports: readonly number[];
  readonly clock: Clock;
}

/** The list that is known of a peer, so that the same need not be sent again. */
export interface KnownList {
  /** Where it was had. */
  readonly path: string;
  /** Entity tag, as the peer gave it. */
  readonly etag: string;
}

/** What a node service is asked for. */
export interface PeerQuestion {
  /** Whether it may serve the list with states; where it says that it does not, the list without is asked for. */
  readonly mayHaveStates: boolean;
  readonly known?: KnownList | undefined;
  /** How long the peer may hold its answer while the list is still the known one; 0 for an answer at once. */
  readonly waitMs: number;
}

/** What a peer had when it was asked. */
export interface PeerFinding {
  /**
   * `service`: it runs the node service; `unchanged`: so, and its list is the one that is known; `bare`: an opencode answers
   * on its own port; `forbidden`: its node service does not admit this machine; else why there is nothing.
   */
  readonly kind: 'service' | 'unchanged' | 'bare' | 'forbidden' | 'refused' | 'silent';
  readonly candidates: readonly Candidate[];
  readonly notes: readonly Note[];
  /** By the keys of candidates: what the service says of each server that it follows. */
  readonly states?: ReadonlyMap<string, ReportedServer>;
  /** It was asked for the list with states, and does not have it. */
  readonly isWithoutStates?: true;
  /** Where the list was had. */
  readonly path?: string;
  /** Of that list; a service that gives none cannot hold its answers. */
  readonly etag?: string;
}

/** Over DERP, on a path that is only being found, an answer takes more than a second; a machine that is off never answers. */
const PEER_TIMEOUT_MS = 3000;

/** 200 instances with the longest directories; a node service gives no more of states. */
const MAX_LIST_BYTES = 1024 * 1024;
const MAX_HEALTH_BYTES = 16 * 1024;

const MAX_SUBJECT_CHARS = 253;
const MAX_REASON_CHARS = 300;

/** What a header may hold that goes back to where it came from (RFC 9110, 8.8.3). */
const ETAG = /^(?:W\/)?"[\x21\x23-\x7e]{1,128}"$/;

/** Asks a peer's node service for its list, and where there is none the configured ports for an opencode. Rejects only when the signal aborts. */
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

/** The peer's name as the tailnet knows it: given by the control server, unlike what the machine calls itself. */
export function peerName({ dnsName, hostName, id }: TailnetNode): string {
  return singleLine(dnsName.split('.', 1)[0] || hostName || id, MAX_SUBJECT_CHARS);
}

async function listOf(
  site: PeerSite,
  deps: PeerDeps,
  signal: AbortSignal,
  question: PeerQuestion,
): Promise<PeerFinding> {
  let path = question.mayHaveStates ? STATES_PATH : LIST_PATH;
  let lack: Pick<PeerFinding, 'isWithoutStates'> = {};
  let answer: Exchange;
  try {
    answer = await askForList(site, deps, signal, { ...question, path });
    if (answer.status === 404 && path === STATES_PATH) {
      path = LIST_PATH;
      lack = { isWithoutStates: true };
      answer = await askForList(site, deps, signal, { ...question, path });
    }
  } catch (error) {
    signal.throwIfAborted();
    // Too large: it is there, and something is wrong with it.
    if (error instanceof RequestError && (error.kind === 'malformed' || error.kind === 'too-large'))
      return { kind: 'refused', candidates: [], notes: [note(site, deps, error.message)] };
    return { kind: isRefusal(error) ? 'refused' : 'silent', candidates: [], notes: [] };
  }
  if (answer.status === 304 && question.known?.path === path)
    return { kind: 'unchanged', candidates: [], notes: [], path, ...lack };
  if (answer.status === 403) return { kind: 'forbidden', candidates: [], notes: [note(site, deps, refusalOf(answer))] };
  const list = answer.status === 200 ? readPeerList(answer.text) : { problem: `answered HTTP ${answer.status}` };
  if ('problem' in list) return { kind: 'refused', candidates: [], notes: [note(site, deps, list.problem)] };
  const { instances, services, leftOut } = list;
  const keyOf = (id: string): string => `${site.node.id}/${id}`;
  const listed = ({ id, path: below, port }: ListedInstance | ListedService, claims: Claims): Candidate =>
    candidateOf(site, deps.nodePort, keyOf(id), below, {
      ...claims,
      ...(port !== undefined && { localPort: port }),
    });
  const candidates = [
    ...instances.map((one) => {
      const { id, name, directory } = one;
      return listed(one, { id, name, ...(directory !== undefined && { directory }) });
    }),
    // Its id is one on its own machine only.
    ...services.map((one) => {
      const { version, isPreview } = one;
      return listed(one, {
        service: { ...(version !== undefined && { version }), ...(isPreview && { isPreview }) },
      });
    }),
  ];
  const notes = leftOut > 0 ? [note(site, deps, `${leftOut} entries of its list make no sense and are left out`)] : [];
  const states = new Map([...list.states].map(([id, state]) => [keyOf(id), state]));
  const { etag } = answer.headers;
  const found = { kind: 'service', candidates, notes, states, path, ...lack } as const;
  return { ...found, ...(etag !== undefined && ETAG.test(etag) && { etag }) };
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

/** The host is always the peer's own address, whatever it says. */
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

/** The machine is there, and nothing listens: as the system says it, or tailscaled of what it dialled. */
function isRefusal(error: unknown): boolean {
  return error instanceof Error && /ECONNREFUSED|connection (?:was )?refused/i.test(error.message);
}

function originOf(address: string, port: number): string {
  return `http://${address.includes(':') ? `[${address}]` : address}:${port}`;
}

function refusalOf({ text }: Exchange): string {
  return text.trim() === ''
    ? 'its node service does not admit this machine'
    : `its node service says ${quoted(text, MAX_REASON_CHARS - 30)}`;
}

function note({ node }: PeerSite, { nodePort }: PeerDeps, reason: string): Note {
  return { subject: quoteName(`${peerName(node)}:${nodePort}`), reason: sentence(reason, MAX_REASON_CHARS) };
}

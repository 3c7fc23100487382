import type { TailnetNode } from '../../tailscale/types.ts';
import { quoteName } from '../../base/plain-text.ts';
import { type KnownList, type PeerDeps, type PeerFinding, peerName, type PeerSite } from './peer.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
/** What a peer had is believed for so long after its last answer, while probes tell that it is offline: services restart, laptops change networks. */
const KEPT_MS = 90_000;
/** How soon one that had something is asked again. */
const KEPT_FIRST_MS = 1000;
const KEPT_MAX_MS = 15_000;

/** A machine that refuses is there, and may start a node service at any time: asking costs it one packet. */
const REFUSED_FIRST_MS = 5000;
const REFUSED_MAX_MS = 60_000;
/** One that is silent is off, or a firewall drops what one sends: asking holds a place for seconds. */
const SILENT_FIRST_MS = 30_000;
const SILENT_MAX_MS = 600_000;
/** A right that was just granted should show soon, and nothing else announces it. */
const FORBIDDEN_FIRST_MS = 5000;
const FORBIDDEN_MAX_MS = 30_000;

const PAUSES = {
  forbidden: [FORBIDDEN_FIRST_MS, FORBIDDEN_MAX_MS],
  refused: [REFUSED_FIRST_MS, REFUSED_MAX_MS],
  silent: [SILENT_FIRST_MS, SILENT_MAX_MS],
} as const;

/** In the order in which they are asked. */
export const KNOWN = 0;

/** What is known of one peer, and when to ask it again. */
export class PageOfPeers {
  site: PeerSite;
  candidates: readonly Candidate[] = [];
  notes: readonly Note[] = [];
  /** It has a node service. */
  service = false;
  /** Its node service does not admit this machine. */
  forbidden = false;
  /** Of the service's list. */
  etag: string | undefined;
  /** Looks in a row that found nothing. */
  misses = 0;
  dueMs = 0;
  /** A look that is under way. */
  asking: Promise<void> | undefined;
  /** What the last look came to that found nothing. */
  #missed: keyof typeof PAUSES | undefined;
  /** When something was found last. */
  #foundMs = 0;

  constructor(site: PeerSite) {
    this.site = site;
  }

  get rank(): number {
    if (this.service || this.candidates.length > 0) return KNOWN;
    if (this.forbidden) return KNOWN + 1;
    return this.misses + (this.site.node.online ? 1 : 2);
  }

  /** What the peer need not send again, where it has nothing else. */
  known(waitMs: number): KnownList | undefined {
    return this.service && this.etag !== undefined ? { etag: this.etag, waitMs } : undefined;
  }

  /** Whether `site` is the same peer at the same place, so that what is known of it still holds. */
  isAt(site: PeerSite): boolean {
    const own = this.site;
    return own.address === site.address && own.dial === site.dial && nameOf(own.node) === nameOf(site.node);
  }

  /** Records what a look at `nowMs` found; true if anything shown of the peer changed. */
  note(finding: PeerFinding, nowMs: number): boolean {
    const before = this.#told();
    this.forbidden = finding.kind === 'forbidden';
    if (finding.kind === 'unchanged') this.#answered(nowMs);
    else if (finding.kind === 'service' || finding.kind === 'bare') this.#found(finding, nowMs);
    else this.#miss(finding.kind, finding.notes, nowMs);
    return this.#told() !== before;
  }

  /** Why a peer of one's own has no instance here, where its notes do not say it. */
  whyNothing({ nodePort, ports }: Pick<PeerDeps, 'nodePort' | 'ports'>): Note | undefined {
    if (this.candidates.length > 0 || this.notes.length > 0) return undefined;
    const name = quoteName(peerName(this.site.node));
    const asked = `port ${nodePort} (node service)${ports.length === 0 ? '' : ` and ${ports.join(', ')} (opencode)`}`;
    const off = this.site.node.online ? '' : 'offline, as the tailnet has it: ';
    return { subject: name, reason: off + this.#whyNothing(asked) };
  }

  #whyNothing(asked: string): string {
    if (this.service) return 'its node service lists no instance; start opencode-connected there';
    if (this.#missed === 'refused')
      return `nothing listens on ${asked}; run the node service there (opencode-mcp node)`;
    if (this.#missed === 'silent')
      return `no answer on ${asked}: it is off or asleep, or a firewall or the tailnet's policy drops what is sent`;
    return `has not answered yet on ${asked}`;
  }

  #told(): string {
    return JSON.stringify([this.candidates, this.notes]);
  }

  #answered(nowMs: number): void {
    this.misses = 0;
    this.#missed = undefined;
    this.dueMs = 0;
    this.#foundMs = nowMs;
  }

  #found({ kind, candidates, notes, etag }: PeerFinding, nowMs: number): void {
    this.#answered(nowMs);
    this.candidates = candidates;
    this.notes = notes;
    this.service = kind === 'service';
    this.etag = etag;
  }

  #miss(kind: keyof typeof PAUSES, notes: readonly Note[], nowMs: number): void {
    // A list that was known with a note of its own would lose that by a 304.
    this.etag = undefined;
    this.misses += 1;
    this.#missed = kind;
    this.notes = notes;
    const hadSome = this.service || this.candidates.length > 0;
    const isKept = hadSome && kind !== 'forbidden' && nowMs - this.#foundMs < KEPT_MS;
    if (!isKept) {
      this.candidates = [];
      this.service = false;
    }
    const [firstMs, maxMs] = isKept ? [KEPT_FIRST_MS, KEPT_MAX_MS] : PAUSES[kind];
    this.dueMs = nowMs + Math.min(firstMs * 2 ** Math.min(this.misses - 1, 10), maxMs);
  }
}

function nameOf({ dnsName, hostName }: TailnetNode): string {
  return `${dnsName}\n${hostName}`;
}

import type { TailnetNode } from '../../tailscale/types.ts';
import type { KnownList, PeerFinding, PeerSite } from './peer.ts';
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
    else this.#missed(finding.kind, finding.notes, nowMs);
    return this.#told() !== before;
  }

  #told(): string {
    return JSON.stringify([this.candidates, this.notes]);
  }

  #answered(nowMs: number): void {
    this.misses = 0;
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

  #missed(kind: keyof typeof PAUSES, notes: readonly Note[], nowMs: number): void {
    // A list that was known with a note of its own would lose that by a 304.
    this.etag = undefined;
    this.misses += 1;
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

import type { Clock } from '../../base/clock.ts';
import { quoteName } from '../../base/plain-text.ts';
import { REPORT_LIFETIME_MS, Reports } from '../../model/report.ts';
import type { TailnetNode } from '../../tailscale/types.ts';
import { type KnownList, type PeerDeps, type PeerFinding, peerName, type PeerQuestion, type PeerSite } from './peer.ts';
import type { Candidate, Note } from '../../model/candidate.ts';

/** Candidates of a peer that stopped answering are kept for this long: services restart, laptops change networks. Probes show that they are offline. */
const KEPT_MS = 90_000;

/** First and longest pause after failures in a row, by the reason of the last one. */
const PAUSES_MS = {
  kept: [1000, 15_000],
  /** A newly granted right should take effect soon, and nothing else announces it. */
  forbidden: [5000, 30_000],
  /** The machine is up and may start a node service at any time; a refused connect costs one packet. */
  refused: [5000, 60_000],
  /** The machine is off or behind a firewall; a request to it occupies a slot for seconds. */
  silent: [30_000, 600_000],
} as const;

/** A node service without states may be updated at any time; each 404 costs it a line in its log. */
const WITHOUT_STATES_MS = 60_000;

/** Rank of a peer that has something. */
export const KNOWN = 0;

/** What is known of one peer, and when to ask it again. */
export class PeerRecord {
  site: PeerSite;
  candidates: readonly Candidate[] = [];
  notes: readonly Note[] = [];
  hasService = false;
  /** The service's last list. */
  known: KnownList | undefined;
  /** Requests in a row that found nothing. */
  misses = 0;
  dueMs = 0;
  /** The request under way. */
  asking: Promise<void> | undefined;
  /** Why the last request found nothing. */
  #failure: 'forbidden' | 'refused' | 'silent' | undefined;
  /** When something was last found, by both clocks: the monotonic one may stand still while this machine sleeps. */
  #foundMs = 0;
  #foundWallMs = 0;
  /** The service has no states; it is not asked for them until then. */
  #withoutStatesMs = 0;
  /** By the candidate's key. */
  readonly #reports = new Reports();
  readonly #clock: Clock;

  constructor(site: PeerSite, clock: Clock) {
    this.site = site;
    this.#clock = clock;
  }

  /** Its node service does not admit this machine. */
  get forbidden(): boolean {
    return this.#failure === 'forbidden';
  }

  /** Peers are asked in this order. */
  get rank(): number {
    if (this.hasService || this.candidates.length > 0) return KNOWN;
    if (this.forbidden) return KNOWN + 1;
    return this.misses + (this.site.node.online ? 1 : 2);
  }

  question(waitMs: number): PeerQuestion {
    const mayHaveStates = this.#clock.monotonic() >= this.#withoutStatesMs;
    return { mayHaveStates, waitMs, known: this.hasService ? this.known : undefined };
  }

  /** Whether `site` is the same peer at the same address, so that this record still holds. */
  isAt(site: PeerSite): boolean {
    const own = this.site;
    return own.address === site.address && own.dial === site.dial && nameOf(own.node) === nameOf(site.node);
  }

  /** Records the result of a request. True if anything shown of the peer changed. */
  update(finding: PeerFinding): boolean {
    const nowMs = this.#clock.monotonic();
    if (finding.isWithoutStates) this.#withoutStatesMs = nowMs + WITHOUT_STATES_MS;
    if (finding.kind === 'unchanged') {
      this.#answered(nowMs);
      return false;
    }
    const before = this.#shown();
    if (finding.kind === 'service' || finding.kind === 'bare') this.#found(finding, nowMs);
    else this.#failed(finding.kind, finding.notes, nowMs);
    return this.#shown() !== before;
  }

  /** Why this peer has no instance here, if its notes do not explain it. */
  emptyReason({ nodePort, ports }: Pick<PeerDeps, 'nodePort' | 'ports'>): Note | undefined {
    if (this.candidates.length > 0 || this.notes.length > 0) return undefined;
    const asked = `port ${nodePort} (node service)${ports.length === 0 ? '' : ` and ${ports.join(', ')} (opencode)`}`;
    const offline = this.site.node.online ? '' : 'offline according to the tailnet: ';
    return { subject: quoteName(peerName(this.site.node)), reason: offline + this.#emptyReason(asked) };
  }

  #emptyReason(asked: string): string {
    if (this.hasService) return 'its node service lists no instance; start opencode-connected there';
    if (this.#failure === 'refused')
      return `nothing listens on ${asked}; run the node service there (opencode-mcp node)`;
    if (this.#failure === 'silent')
      return `no answer on ${asked}: it is off or asleep, or a firewall or the tailnet's policy drops what is sent`;
    return `has not answered yet on ${asked}`;
  }

  #shown(): string {
    return JSON.stringify([this.candidates, this.notes]);
  }

  #answered(nowMs: number): void {
    this.misses = 0;
    this.#failure = undefined;
    this.dueMs = 0;
    this.#foundMs = nowMs;
    this.#foundWallMs = this.#clock.now();
  }

  #found({ kind, candidates, notes, states = new Map(), path, etag }: PeerFinding, nowMs: number): void {
    this.#answered(nowMs);
    // Requests are held for less than the lifetime, so only a machine that slept exceeds it.
    this.#reports.set(states, () => Math.abs(this.#clock.now() - this.#foundWallMs) < REPORT_LIFETIME_MS);
    this.candidates = candidates.map((one) => {
      const report = this.#reports.get(one.key);
      return report === undefined ? one : { ...one, report };
    });
    this.notes = notes;
    this.hasService = kind === 'service';
    this.known = path !== undefined && etag !== undefined ? { path, etag } : undefined;
  }

  #failed(kind: 'forbidden' | 'refused' | 'silent', notes: readonly Note[], nowMs: number): void {
    // A 304 to the next request would lose the notes that the list itself had.
    this.known = undefined;
    // The next service to answer may be a newer one.
    this.#withoutStatesMs = 0;
    // The contact to the watcher is lost: its reports may be outdated.
    this.#reports.set([], () => false);
    this.misses += 1;
    this.#failure = kind;
    this.notes = notes;
    const hadSome = this.hasService || this.candidates.length > 0;
    const isKept = hadSome && kind !== 'forbidden' && nowMs - this.#foundMs < KEPT_MS;
    this.candidates = isKept ? this.candidates.map(withoutReport) : [];
    if (!isKept) this.hasService = false;
    const [firstMs, maxMs] = PAUSES_MS[isKept ? 'kept' : kind];
    this.dueMs = nowMs + Math.min(firstMs * 2 ** Math.min(this.misses - 1, 10), maxMs);
  }
}

function withoutReport(candidate: Candidate): Candidate {
  const { report: _, ...rest } = candidate;
  return rest;
}

function nameOf({ dnsName, hostName }: TailnetNode): string {
  return `${dnsName}\n${hostName}`;
}

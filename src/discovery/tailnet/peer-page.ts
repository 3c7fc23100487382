import type { Clock } from '../../base/clock.ts';
import { quoteName } from '../../base/plain-text.ts';
import { REPORT_LIFETIME_MS, Reports } from '../../model/report.ts';
import type { TailnetNode } from '../../tailscale/types.ts';
import { type KnownList, type PeerDeps, type PeerFinding, peerName, type PeerQuestion, type PeerSite } from './peer.ts';
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

/** A node service without states may be updated at any time; each look costs it a line in its log. */
const WITHOUT_STATES_MS = 60_000;

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
  /** The service's list. */
  known: KnownList | undefined;
  /** Looks in a row that found nothing. */
  misses = 0;
  dueMs = 0;
  /** A look that is under way. */
  asking: Promise<void> | undefined;
  /** What the last look came to that found nothing. */
  #missed: keyof typeof PAUSES | undefined;
  /** When something was found last. */
  #foundMs = 0;
  /** The same, by the clock that goes on while this machine sleeps. */
  #foundAtMs = 0;
  /** Until then it is not asked for states: it said that it has none. */
  #withoutStatesMs = 0;
  /** By the candidate's key. */
  readonly #reports = new Reports();
  readonly #clock: Clock;

  constructor(site: PeerSite, clock: Clock) {
    this.site = site;
    this.#clock = clock;
  }

  get rank(): number {
    if (this.service || this.candidates.length > 0) return KNOWN;
    if (this.forbidden) return KNOWN + 1;
    return this.misses + (this.site.node.online ? 1 : 2);
  }

  /** What to ask of it, and what it need not send again where it has nothing else. */
  question(waitMs: number): PeerQuestion {
    const mayHaveStates = this.#clock.monotonic() >= this.#withoutStatesMs;
    return { mayHaveStates, waitMs, known: this.service ? this.known : undefined };
  }

  /** Whether `site` is the same peer at the same place, so that what is known of it still holds. */
  isAt(site: PeerSite): boolean {
    const own = this.site;
    return own.address === site.address && own.dial === site.dial && nameOf(own.node) === nameOf(site.node);
  }

  /** Records what a look found; true if anything shown of the peer changed. */
  note(finding: PeerFinding): boolean {
    const nowMs = this.#clock.monotonic();
    this.forbidden = finding.kind === 'forbidden';
    if (finding.isWithoutStates) this.#withoutStatesMs = nowMs + WITHOUT_STATES_MS;
    if (finding.kind === 'unchanged') {
      this.#answered(nowMs);
      return false;
    }
    const before = this.#told();
    if (finding.kind === 'service' || finding.kind === 'bare') this.#found(finding, nowMs);
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
    this.#foundAtMs = this.#clock.now();
  }

  #found({ kind, candidates, notes, states = new Map(), path, etag }: PeerFinding, nowMs: number): void {
    this.#answered(nowMs);
    this.#reports.set(states, () => this.#isCurrent());
    this.candidates = candidates.map((one) => {
      const report = this.#reports.get(one.key);
      return report === undefined ? one : { ...one, report };
    });
    this.notes = notes;
    this.service = kind === 'service';
    this.known = path !== undefined && etag !== undefined ? { path, etag } : undefined;
  }

  /** A request is held for less than that, so that only a machine that slept is behind. */
  #isCurrent(): boolean {
    return Math.abs(this.#clock.now() - this.#foundAtMs) < REPORT_LIFETIME_MS;
  }

  /** Whatever held the request broke: what it said may be otherwise by now. */
  #withoutReports(): void {
    this.#reports.set([], () => false);
    this.candidates = this.candidates.map((one) => {
      const { report: _, ...rest } = one;
      return rest;
    });
  }

  #miss(kind: keyof typeof PAUSES, notes: readonly Note[], nowMs: number): void {
    // A list that was known with a note of its own would lose that by a 304.
    this.known = undefined;
    // What answers next may be a newer one.
    this.#withoutStatesMs = 0;
    this.#withoutReports();
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

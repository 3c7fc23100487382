import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';
import type { TailnetNode } from '../tailscale/types.ts';
import { findOn, type PeerDeps, type PeerFinding, type PeerSite } from './peer.ts';
import type { Candidate, Note } from './source.ts';

/** Requests at once: beside the probes of the process, which have their own limit. */
const CONCURRENCY = 16;

/** Asked in one round without having had anything: in a tailnet of thousands the others come later. */
const MAX_STRANGERS = 256;

/** What a peer had is believed for so long after its last answer, while probes tell that it is offline: services restart, laptops change networks. */
const KEPT_MS = 90_000;
/** How soon one that had something is asked again. */
const KEPT_FIRST_MS = 1000;
const KEPT_MAX_MS = 15_000;

/** A machine that refuses is there, and may start a node service at any time: asking costs it one packet. */
const REFUSED_FIRST_MS = 5000;
const REFUSED_MAX_MS = 300_000;
/** One that is silent is off, or a firewall drops what one sends: asking holds a place for seconds. */
const SILENT_FIRST_MS = 30_000;
const SILENT_MAX_MS = 600_000;

const PAUSES = {
  // Each refusal is a line in that machine's log.
  forbidden: [SILENT_FIRST_MS, SILENT_MAX_MS],
  refused: [REFUSED_FIRST_MS, REFUSED_MAX_MS],
  silent: [SILENT_FIRST_MS, SILENT_MAX_MS],
} as const;

interface Page {
  site: PeerSite;
  candidates: readonly Candidate[];
  notes: readonly Note[];
  service: boolean;
  /** Looks in a row that found nothing. */
  misses: number;
  /** When something was found last. */
  foundMs: number;
  dueMs: number;
  /** Under way. */
  asking: Promise<void> | undefined;
}

export interface PeerBookDeps extends PeerDeps {
  /** Something on the peers is other than it was. */
  readonly onChange: () => void;
}

/** What is known of each peer, and when to ask it again. */
export class PeerBook {
  readonly #deps: PeerBookDeps;
  readonly #limit = pLimit(CONCURRENCY);
  readonly #pages = new Map<string, Page>();
  readonly #root = new AbortController();

  constructor(deps: PeerBookDeps) {
    this.#deps = deps;
    // Every request listens for the end.
    setMaxListeners(0, this.#root.signal);
  }

  /** Keeps to these peers: forgets the others, and begins anew with one that has another address or has just come online. */
  keep(sites: readonly PeerSite[]): void {
    const wanted = new Set(sites.map(({ node }) => node.id));
    for (const id of this.#pages.keys()) if (!wanted.has(id)) this.#pages.delete(id);
    for (const site of sites) {
      const page = this.#pages.get(site.node.id);
      if (page === undefined || !isSameSite(page.site, site)) {
        this.#pages.set(site.node.id, newPage(site));
        continue;
      }
      if (!page.site.node.online && site.node.online && page.asking === undefined) page.dueMs = 0;
      page.site = site;
    }
  }

  /** Asks the peers that are due: those with a service first, those offline last. Resolves when all have answered. */
  async ask(): Promise<void> {
    const nowMs = this.#deps.clock.now();
    const due = [...this.#pages.values()].filter((page) => page.asking === undefined && page.dueMs <= nowMs);
    const known = due.filter((page) => rank(page) <= KNOWN);
    const strangers = due.filter((page) => rank(page) > KNOWN);
    const first = strangers.toSorted((one, other) => rank(one) - rank(other)).slice(0, MAX_STRANGERS);
    for (const page of [...known, ...first]) this.#begin(page);
    await Promise.all([...this.#pages.values()].flatMap(({ asking }) => asking ?? []));
  }

  /** Asks again those that have a node service. */
  async askServices(): Promise<void> {
    const nowMs = this.#deps.clock.now();
    const isDue = ({ service, asking, dueMs }: Page): boolean => service && asking === undefined && dueMs <= nowMs;
    const services = [...this.#pages.values()].filter(isDue);
    for (const page of services) this.#begin(page);
    await Promise.all(services.flatMap(({ asking }) => asking ?? []));
  }

  get found(): { readonly candidates: readonly Candidate[]; readonly notes: readonly Note[] } {
    const pages = [...this.#pages.values()];
    return {
      candidates: pages.flatMap(({ candidates }) => candidates),
      notes: pages.flatMap(({ notes }) => notes),
    };
  }

  /** Ends every request. */
  async close(): Promise<void> {
    this.#root.abort();
    await Promise.all([...this.#pages.values()].flatMap(({ asking }) => asking ?? []));
  }

  #begin(page: Page): void {
    page.asking = this.#limit(() => this.#look(page));
  }

  async #look(page: Page): Promise<void> {
    const { signal } = this.#root;
    // Forgotten, or begun anew, while it waited for its turn.
    if (signal.aborted || this.#pages.get(page.site.node.id) !== page) return;
    try {
      const before = JSON.stringify([page.candidates, page.notes]);
      this.#note(page, await findOn(page.site, this.#deps, signal));
      if (JSON.stringify([page.candidates, page.notes]) !== before) this.#deps.onChange();
    } catch {
      // Only the end of everything.
    } finally {
      page.asking = undefined;
    }
  }

  #note(page: Page, { kind, candidates, notes }: PeerFinding): void {
    const nowMs = this.#deps.clock.now();
    page.notes = notes;
    if (kind === 'service' || kind === 'bare') {
      Object.assign(page, { candidates, service: kind === 'service', misses: 0, foundMs: nowMs, dueMs: 0 });
      return;
    }
    page.misses += 1;
    const hadSome = page.service || page.candidates.length > 0;
    const isKept = hadSome && kind !== 'forbidden' && nowMs - page.foundMs < KEPT_MS;
    if (!isKept) Object.assign(page, { candidates: [], service: false });
    const [firstMs, maxMs] = isKept ? [KEPT_FIRST_MS, KEPT_MAX_MS] : PAUSES[kind];
    page.dueMs = nowMs + Math.min(firstMs * 2 ** Math.min(page.misses - 1, 10), maxMs);
  }
}

function newPage(site: PeerSite): Page {
  return { site, candidates: [], notes: [], service: false, misses: 0, foundMs: 0, dueMs: 0, asking: undefined };
}

function isSameSite(one: PeerSite, other: PeerSite): boolean {
  return one.address === other.address && one.dial === other.dial && nameOf(one.node) === nameOf(other.node);
}

function nameOf({ dnsName, hostName }: TailnetNode): string {
  return `${dnsName}\n${hostName}`;
}

/** In the order in which they are asked. */
function rank({ service, candidates, site, misses }: Page): number {
  if (service || candidates.length > 0) return KNOWN;
  return misses + (site.node.online ? 1 : 2);
}

const KNOWN = 0;

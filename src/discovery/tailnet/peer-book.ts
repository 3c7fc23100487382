import { setMaxListeners } from 'node:events';

import pLimit from 'p-limit';
import { PeerFollow } from './peer-follow.ts';
import { KNOWN, PageOfPeers } from './peer-page.ts';
import { findOn, type PeerDeps, type PeerSite } from './peer.ts';
import type { Candidate, Note } from '../../model/candidate.ts';
/** Requests at once: beside the probes of the process, which have their own limit. */
const CONCURRENCY = 16;

/** Asked in one round without having had anything: in a tailnet of thousands the others come later. */
const MAX_STRANGERS = 256;

export interface PeerBookDeps extends PeerDeps {
  /** Something on the peers is other than it was. */
  readonly onChange: () => void;
}

/** What is known of all peers. */
export class PeerBook {
  readonly #deps: PeerBookDeps;
  readonly #knownLimit = pLimit(CONCURRENCY);
  /** Of their own: those that never answer must not hold up those that do. */
  readonly #strangerLimit = pLimit(CONCURRENCY);
  readonly #pages = new Map<string, PageOfPeers>();
  readonly #root = new AbortController();
  readonly #follow: PeerFollow;

  constructor(deps: PeerBookDeps) {
    this.#deps = deps;
    // Every request listens for the end.
    setMaxListeners(0, this.#root.signal);
    const { clock } = deps;
    this.#follow = new PeerFollow({ clock, look: (page, waitMs, signal) => this.#look(page, waitMs, signal) });
  }

  /** Keeps to these peers: forgets the others, and begins anew with one that has another address or has just come online. */
  keep(sites: readonly PeerSite[]): void {
    const wanted = new Set(sites.map(({ node }) => node.id));
    for (const [id, page] of this.#pages) if (!wanted.has(id)) this.#forget(id, page);
    for (const site of sites) {
      const { id, online } = site.node;
      const page = this.#pages.get(id);
      if (page === undefined || !page.isAt(site)) {
        if (page !== undefined) this.#forget(id, page);
        this.#pages.set(id, new PageOfPeers(site));
        continue;
      }
      if (!page.site.node.online && online && page.asking === undefined) this.#doubt(page);
      page.site = site;
    }
  }

  /**
   * Asks the peers that are due, or with `thorough` those that are not, too; in either case not all of thousands. Those with a
   * service first, those offline last. Resolves when all have answered.
   */
  async ask({ thorough = false }: { readonly thorough?: boolean } = {}): Promise<void> {
    const nowMs = this.#deps.clock.now();
    const isDue = (page: PageOfPeers): boolean => page.dueMs <= nowMs && !this.#follow.isHolding(page);
    const due = [...this.#pages.values()].filter((page) => page.asking === undefined && (thorough || isDue(page)));
    const known = due.filter(({ rank }) => rank <= KNOWN);
    const strangers = due.filter(({ rank }) => rank > KNOWN);
    const first = strangers.toSorted((one, other) => one.rank - other.rank).slice(0, MAX_STRANGERS);
    for (const page of [...known, ...first]) this.#begin(page);
    await Promise.all([...this.#pages.values()].flatMap(({ asking }) => asking ?? []));
  }

  /** From now on `onChange` tells at once what begins or ends on peers with a node service. */
  follow(): void {
    if (!this.#root.signal.aborted) this.#follow.start(this.#pages.values());
  }

  async unfollow(): Promise<void> {
    await this.#follow.stop();
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
    await Promise.all([this.#follow.stop(), ...[...this.#pages.values()].flatMap(({ asking }) => asking ?? [])]);
  }

  /** The tailnet was away: what is held open may lead nowhere, and what was silent may answer. */
  doubt(): void {
    for (const page of this.#pages.values()) if (page.asking === undefined) this.#doubt(page);
  }

  #doubt(page: PageOfPeers): void {
    page.dueMs = 0;
    this.#follow.interrupt(page);
  }

  #forget(id: string, page: PageOfPeers): void {
    this.#pages.delete(id);
    this.#follow.forget(page);
  }

  #begin(page: PageOfPeers): void {
    // Where it is being followed, one request at once is enough.
    this.#follow.interrupt(page);
    const limit = page.rank <= KNOWN ? this.#knownLimit : this.#strangerLimit;
    page.asking = limit(() => this.#look(page, 0, this.#root.signal)).finally(() => {
      page.asking = undefined;
    });
  }

  async #look(page: PageOfPeers, waitMs: number, signal: AbortSignal): Promise<void> {
    // Forgotten, or begun anew, while it waited for its turn.
    if (signal.aborted || !this.#has(page)) return;
    try {
      const finding = await findOn(page.site, this.#deps, signal, page.known(waitMs));
      if (!this.#has(page)) return;
      const isNews = page.note(finding, this.#deps.clock.now());
      this.#follow.follow(page);
      if (isNews) this.#deps.onChange();
    } catch {
      // Only the end of everything.
    }
  }

  #has(page: PageOfPeers): boolean {
    return this.#pages.get(page.site.node.id) === page;
  }
}

import type { OverviewPart, ProbedEndpoint } from '../model/instance.ts';
import { LATELY_MS } from '../probing/ask-service.ts';
import {
  type KnownOverview,
  type OtherDirectory,
  type RecentDirectories,
  updateOverview,
} from '../probing/overview.ts';
import type { ProbeOutcome } from '../probing/prober.ts';

/** Limits the memory that a caller which visits many directories can use. */
const MAX_VISITED = 32;

type Looks = NonNullable<ProbeOutcome['elsewhere']>;

/** The directories, beside its own, in which a server was seen to work: as known by one of its endpoints. */
export class OtherDirectories {
  #known: ReadonlyMap<string, KnownOverview> = new Map();
  /** Directories that calls worked in and no survey has asked about since, each with a session of it. */
  #visited: Map<string, string> = new Map();
  /** The directories whose status the last survey learnt. */
  asked: readonly string[] = [];

  /** The server may work in the directory of this session; the next survey asks. */
  visit({ id, directory }: { readonly id: string; readonly directory: string }): void {
    if (this.#visited.size < MAX_VISITED) this.#visited.set(directory, id);
  }

  /** Adds newer overviews from another endpoint of the server, or from a replaced registration. */
  merge(from: OtherDirectories): void {
    const known = new Map(this.#known);
    for (const [directory, one] of from.#known)
      if (one.overview.askedAtMs > (known.get(directory)?.overview.askedAtMs ?? 0)) known.set(directory, one);
    this.#known = known;
    for (const [directory, id] of from.#visited) this.visit({ id, directory });
  }

  /** Takes over everything another endpoint of the server knows. */
  copy(from: OtherDirectories): void {
    this.#known = from.#known;
    this.#visited = new Map(from.#visited);
    this.asked = from.asked;
  }

  /**
   * The directories to ask about: where work was seen, where calls went, and where sessions were used lately. The last leave out directories
   * that belong to other servers (`isTaken`): processes of one home share their sessions.
   */
  toAsk(
    own: string,
    recent: RecentDirectories['sessions'] | undefined,
    isTaken: (directory: string) => boolean,
  ): readonly OtherDirectory[] {
    const lately = [...(recent?.keys() ?? [])].filter((directory) => !isTaken(directory));
    const all = new Set([...this.#known.keys(), ...this.#visited.keys(), ...lately]);
    all.delete(own);
    return [...all].map((directory) => {
      const known = this.#known.get(directory)?.parts;
      const listed = recent?.get(directory);
      return {
        directory,
        known,
        isListed: listed !== undefined,
        witness: listed?.id ?? known?.status?.running[0] ?? known?.witness ?? this.#visited.get(directory),
        session: listed?.isChild === false ? listed : (known?.session ?? undefined),
      };
    });
  }

  /** How many known directories were not used lately. */
  get old(): number {
    return [...this.#known.values()].filter(({ overview }) => overview.isOld === true).length;
  }

  get overviews(): ProbedEndpoint['elsewhere'] {
    if (this.#known.size === 0) return undefined;
    return new Map([...this.#known].map(([directory, { overview }]) => [directory, overview]));
  }

  /** A watcher's report is complete: the server works nowhere else. */
  replace(known: ReadonlyMap<string, KnownOverview>): void {
    this.#known = known;
  }

  /** Takes over looks at single directories of OpenCode 1. A directory is kept while work is seen there, and some minutes after. */
  settle(looks: Looks, recent: RecentDirectories['sessions'] | undefined, nowMs: number): void {
    const all = new Map(this.#known);
    const answered = [...looks].filter(([, { learnt }]) => learnt.status !== undefined).map(([name]) => name);
    this.asked = [...this.asked, ...answered];
    for (const [directory, { learnt, missing, isForeign }] of looks) {
      const before = isForeign ? undefined : all.get(directory);
      const known = updateOverview(before, learnt, missing, nowMs);
      const isIdle = known?.parts.status?.running.length === 0;
      const isRecent = recent?.has(directory) === true && before !== undefined;
      if (known === undefined || (isIdle && !isRecent)) all.delete(directory);
      else all.set(directory, known);
      if (isIdle || isForeign) this.#visited.delete(directory);
    }
    this.#known = all;
  }

  /** Takes over a look at an OpenCode 2, which lists all directories that were used lately and everything that runs. */
  settleService({ missing, isWhole = true }: ProbeOutcome, looks: Looks, nowMs: number): void {
    const all = new Map<string, KnownOverview>();
    for (const [directory, known] of isWhole ? [] : this.#known)
      if (!looks.has(directory)) all.set(directory, unlisted(known, missing, nowMs));
    for (const [directory, { learnt }] of looks) {
      const known = updateOverview(this.#known.get(directory), learnt, missing, nowMs);
      if (known !== undefined) all.set(directory, known);
    }
    this.#known = all;
  }
}

/** A directory of OpenCode 2 that the list no longer reaches. Running sessions are always listed, so nothing runs there. */
function unlisted(known: KnownOverview, missing: readonly OverviewPart[], nowMs: number): KnownOverview {
  const { session } = known.parts;
  const isOld = known.parts.isOld === true || nowMs - (session?.updatedMs ?? 0) > LATELY_MS;
  const status = { activity: { kind: 'idle' }, running: [] } as const;
  const learnt = missing.includes('status') ? { isOld } : { isOld, status, permissions: [], questions: [] };
  return updateOverview(known, learnt, [], nowMs) ?? known;
}

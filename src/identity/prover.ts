import type { Clock } from '../base/clock.ts';
import type { Connection } from '../http/exchange.ts';
import type { Dialect } from '../model/instance.ts';
import type { KeyPair, ProofSet } from './merge.ts';

/** A pair to prove; the first is the better way. */
export interface Pair {
  readonly keys: KeyPair;
  readonly connections: readonly [Connection, Connection];
  /** Of both. */
  readonly dialect: Dialect;
}

export interface ProverDeps {
  readonly clock: Clock;
  readonly proveSame: (
    dialect: Dialect,
    connections: { readonly listen: Connection; readonly speak: Connection },
    signal: AbortSignal,
  ) => Promise<boolean>;
  /** Looks at what is registered for these addresses; resolves when all have answered or failed. Never rejects. */
  readonly lookAgain: (keys: KeyPair) => Promise<unknown>;
  /** A pair was proven, or one that came back was not. */
  readonly onSettled: () => void;
}

/** A proof holds one event stream open; they are few and short. */
const PROOFS_AT_ONCE = 4;

/** Silence of the preview only says that nothing happened; it is listened to where something runs, and not else. */
const SILENT_GAP_MS = 2000;

/** Silence may be a busy process or a proxy that buffers; two machines that look alike stay silent for ever. */
const FIRST_GAP_MS = 2000;
const LAST_GAP_MS = 15 * 60_000;

interface Attempt {
  readonly keys: KeyPair;
  failures: number;
  nextMs: number;
}

/** Proves suspected pairs a few at a time, outside the probes' limiter, and keeps what was proven while both ends live. */
export class Prover {
  readonly #deps: ProverDeps;
  readonly #root = new AbortController();
  readonly #proven = new Map<string, KeyPair>();
  /** In the order in which they ended. */
  readonly #former = new Map<string, KeyPair>();
  /** Pairs of which an end is back and no new proof has been had or missed, with that end. */
  readonly #returning = new Map<string, { readonly keys: KeyPair; readonly key: string }>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #waiting = new Map<string, Pair>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(deps: ProverDeps) {
    this.#deps = deps;
  }

  proofs(): ProofSet {
    return { proven: [...this.#proven.values()], former: [...this.#former.values()].toReversed() };
  }

  /**
   * Ends that were dead and answer again, and may be another process by now: until that is known they are neither a way to
   * their instance nor an instance of their own, or the list would flicker with each.
   */
  returning(): ReadonlySet<string> {
    const held = new Set([...this.#returning.values()].map(({ key }) => key));
    for (const keys of held.size > 0 ? this.#proven.values() : []) for (const key of keys) held.delete(key);
    return held;
  }

  /** Tries those of `pairs` that are not proven, under way, or tried too short a time ago. Both ends must be healthy now. */
  consider(pairs: readonly Pair[]): void {
    if (this.#root.signal.aborted) return;
    const nowMs = this.#deps.clock.monotonic();
    this.#waiting.clear();
    for (const pair of pairs) {
      const id = pairId(pair.keys);
      if (this.#proven.has(id) || this.#running.has(id)) continue;
      if ((this.#attempts.get(id)?.nextMs ?? 0) <= nowMs) this.#waiting.set(id, pair);
    }
    const suspected = this.#returning.size > 0 ? new Set(pairs.map(({ keys }) => pairId(keys))) : undefined;
    // What nothing suggests any more is never tried.
    for (const id of this.#returning.keys()) if (!suspected?.has(id)) this.#returning.delete(id);
    this.#fill();
  }

  /** An end stopped being healthy: what was proven of it no longer holds, and what was tried counts no longer. */
  unhealthy(key: string): void {
    for (const [id, keys] of this.#proven) {
      if (!keys.includes(key)) continue;
      this.#proven.delete(id);
      this.#former.set(id, keys);
    }
    for (const [id, { keys }] of this.#returning) {
      if (!keys.includes(key)) continue;
      this.#returning.delete(id);
      this.#former.set(id, keys);
    }
    for (const [id, { keys }] of this.#attempts) if (keys.includes(key)) this.#attempts.delete(id);
    for (const id of this.#waiting.keys()) if (this.#waiting.get(id)?.keys.includes(key)) this.#waiting.delete(id);
  }

  /** An end is healthy again: where the other is too, only a new proof counts. */
  healthy(key: string, isHealthy: (key: string) => boolean): void {
    for (const [id, keys] of this.#former) {
      if (!keys.includes(key) || !keys.every(isHealthy)) continue;
      this.#former.delete(id);
      this.#returning.set(id, { keys, key });
    }
  }

  /** Nothing is registered there any more. */
  forget(key: string): void {
    this.unhealthy(key);
    for (const [id, keys] of this.#former) if (keys.includes(key)) this.#former.delete(id);
  }

  /** Resolves when nothing is being proven or about to be. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.values());
  }

  async close(): Promise<void> {
    this.#root.abort();
    this.#waiting.clear();
    await Promise.all(this.#running.values());
  }

  #fill(): void {
    for (const [id, pair] of this.#waiting) {
      if (this.#running.size >= PROOFS_AT_ONCE) return;
      this.#waiting.delete(id);
      this.#running.set(id, this.#try(id, pair));
    }
  }

  async #try(id: string, { keys, connections: [one, other], dialect }: Pair): Promise<void> {
    const attempt = this.#attempts.get(id) ?? { keys, failures: 0, nextMs: 0 };
    this.#attempts.set(id, attempt);
    // A proxy may hold back events one way only.
    const [listen, speak] = attempt.failures % 2 === 0 ? [one, other] : [other, one];
    const proven = await this.#deps.proveSame(dialect, { listen, speak }, this.#root.signal);
    this.#running.delete(id);
    if (this.#root.signal.aborted) return;
    // Gone from the attempts: an end was unhealthy meanwhile, and this may be the answer of what was there before.
    const stands = this.#attempts.get(id) === attempt;
    if (proven && stands) {
      this.#attempts.delete(id);
      this.#former.delete(id);
      this.#returning.delete(id);
      this.#proven.set(id, keys);
      this.#deps.onSettled();
    } else if (stands) {
      const gapMs = Math.min(FIRST_GAP_MS * 4 ** attempt.failures, LAST_GAP_MS);
      attempt.nextMs = this.#deps.clock.monotonic() + (dialect === 'opencode-2-preview' ? SILENT_GAP_MS : gapMs);
      attempt.failures += 1;
      void this.#release(id);
    }
    this.#fill();
  }

  /** No proof was had of a way that is back. It may just be gone again: then it is still what it was. */
  async #release(id: string): Promise<void> {
    const returning = this.#returning.get(id);
    if (returning === undefined) return;
    await this.#deps.lookAgain(returning.keys);
    if (this.#returning.get(id) !== returning || this.#root.signal.aborted) return;
    this.#returning.delete(id);
    this.#deps.onSettled();
  }
}

function pairId(keys: KeyPair): string {
  return keys.join('\0');
}

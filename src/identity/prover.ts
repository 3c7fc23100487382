import type { Clock } from '../base/clock.ts';
import type { Connection } from '../http/exchange.ts';
import type { Dialect } from '../model/instance.ts';
import type { KeyPair, ProofSet } from './merge.ts';

/** Two endpoints to prove the same; the first is the preferred one. */
export interface Pair {
  readonly keys: KeyPair;
  readonly connections: readonly [Connection, Connection];
  readonly dialect: Dialect;
}

export interface ProverDeps {
  readonly clock: Clock;
  /** False proves nothing. OpenCode 1: listens to events on `one`, and causes an event through `other`. */
  readonly isSame: (dialect: Dialect, one: Connection, other: Connection, signal: AbortSignal) => Promise<boolean>;
  /** Probes the endpoints with these keys; resolves when all have answered or failed. Never rejects. */
  readonly probe: (keys: KeyPair) => Promise<unknown>;
  /** Called when a pair is proven, and when a returning one could not be. */
  readonly onSettled: () => void;
}

/** Each proof holds an event stream open. */
const PROOFS_AT_ONCE = 4;

/** The pause for the preview, whose pairs are suspected only while something runs there. */
const SILENT_GAP_MS = 2000;

/** Pauses grow from the first to the last: a busy process or a buffering proxy may delay an event, but two machines that look alike never succeed. */
const FIRST_GAP_MS = 2000;
const LAST_GAP_MS = 15 * 60_000;

interface Attempt {
  readonly keys: KeyPair;
  failures: number;
  nextMs: number;
}

/** Proves suspected pairs, a few at a time, and keeps each proof while both endpoints are healthy. */
export class Prover {
  readonly #deps: ProverDeps;
  readonly #root = new AbortController();
  readonly #proven = new Map<string, KeyPair>();
  /** Proofs that ended because an endpoint became unhealthy, oldest first. */
  readonly #former = new Map<string, KeyPair>();
  /** Former pairs whose endpoint `key` answers again, until a new proof succeeds or fails. */
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
   * Endpoints that answer again, and may be another process by now. Until that is known they are left out of the list, which would
   * flicker otherwise.
   */
  returning(): ReadonlySet<string> {
    const held = new Set([...this.#returning.values()].map(({ key }) => key));
    for (const keys of held.size > 0 ? this.#proven.values() : []) for (const key of keys) held.delete(key);
    return held;
  }

  /** Tries pairs that are neither proven nor under way, and not tried too recently. Both ends must be healthy. */
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
    // Pairs that are no longer suspected would never be tried.
    for (const id of this.#returning.keys()) if (!suspected?.has(id)) this.#returning.delete(id);
    this.#fill();
  }

  /** Ends the proofs of an endpoint, and forgets failed attempts. */
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

  /** If both ends of a former pair are healthy again, only a new proof counts. */
  healthy(key: string, isHealthy: (key: string) => boolean): void {
    for (const [id, keys] of this.#former) {
      if (!keys.includes(key) || !keys.every(isHealthy)) continue;
      this.#former.delete(id);
      this.#returning.set(id, { keys, key });
    }
  }

  /** The registration is gone. */
  forget(key: string): void {
    this.unhealthy(key);
    for (const [id, keys] of this.#former) if (keys.includes(key)) this.#former.delete(id);
  }

  /** Resolves when no proof is under way. */
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
    // A proxy may hold back the events of one endpoint only.
    const [first, second] = attempt.failures % 2 === 0 ? [one, other] : [other, one];
    const proven = await this.#deps.isSame(dialect, first, second, this.#root.signal);
    this.#running.delete(id);
    if (this.#root.signal.aborted) return;
    // If an end was unhealthy meanwhile, the result may be of another process.
    const isCurrent = this.#attempts.get(id) === attempt;
    if (isCurrent && proven) this.#succeeded(id, keys);
    else if (isCurrent) this.#failed(id, attempt, dialect);
    this.#fill();
  }

  #succeeded(id: string, keys: KeyPair): void {
    this.#attempts.delete(id);
    this.#former.delete(id);
    this.#returning.delete(id);
    this.#proven.set(id, keys);
    this.#deps.onSettled();
  }

  #failed(id: string, attempt: Attempt, dialect: Dialect): void {
    const growingMs = Math.min(FIRST_GAP_MS * 4 ** attempt.failures, LAST_GAP_MS);
    attempt.nextMs = this.#deps.clock.monotonic() + (dialect === 'opencode-2-preview' ? SILENT_GAP_MS : growingMs);
    attempt.failures += 1;
    void this.#release(id);
  }

  /** Lists a returning endpoint that could not be proven, unless it is already gone again. */
  async #release(id: string): Promise<void> {
    const returning = this.#returning.get(id);
    if (returning === undefined) return;
    await this.#deps.probe(returning.keys);
    if (this.#returning.get(id) !== returning || this.#root.signal.aborted) return;
    this.#returning.delete(id);
    this.#deps.onSettled();
  }
}

function pairId(keys: KeyPair): string {
  return keys.join('\0');
}

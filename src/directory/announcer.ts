import type { Instance } from './instance.ts';

/** So often in a row an instance's end and return are told at once. */
const FLIPS_AT_ONCE = 3;
/** Afterwards so often: who is told of each flip of a bad link learns nothing by it. In ms. */
const DAMPED_MS = 5 * 60_000;

interface Told {
  readonly state: Instance['state'];
  /** Ends and returns told one shortly after another. */
  readonly flips: number;
  readonly flippedAtMs: number;
}

/** Decides which changes of the list are told: names and what instances do at once, what comes and goes not each time. */
export class Announcer {
  #told: ReadonlyMap<string, Told> = new Map();

  /** Whether something is to be told now, and after how many ms to ask again for what is held back. */
  review(instances: readonly Instance[], nowMs: number): { readonly tell: boolean; readonly againMs?: number } {
    const before = this.#told;
    const now = new Map<string, Told>();
    let tell = before.size !== instances.length;
    let againMs = Infinity;
    for (const { name, state } of instances) {
      const known = before.get(name);
      if (known?.state === state) {
        now.set(name, known);
        continue;
      }
      const held = known === undefined ? 0 : heldBackMs(known, state, nowMs);
      if (known !== undefined && held > 0) {
        againMs = Math.min(againMs, held);
        now.set(name, known);
        continue;
      }
      tell = true;
      now.set(name, known === undefined ? { state, flips: 0, flippedAtMs: 0 } : told(known, state, nowMs));
    }
    this.#told = now;
    return { tell, ...(againMs < Infinity && { againMs }) };
  }
}

function isFlip(one: Told['state'], other: Told['state']): boolean {
  return one === 'offline' || other === 'offline';
}

function heldBackMs({ state: old, flips, flippedAtMs }: Told, state: Told['state'], nowMs: number): number {
  return isFlip(old, state) && flips >= FLIPS_AT_ONCE ? Math.max(0, flippedAtMs + DAMPED_MS - nowMs) : 0;
}

function told(known: Told, state: Told['state'], nowMs: number): Told {
  if (!isFlip(known.state, state)) return { ...known, state };
  // One that flips as soon as it may goes on being damped.
  const lately = nowMs - known.flippedAtMs < 2 * DAMPED_MS;
  return { state, flips: lately ? known.flips + 1 : 1, flippedAtMs: nowMs };
}

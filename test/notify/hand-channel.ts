import { type Channel, DeliveryError, type Receipt } from '../../src/notify/channels/channel.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { deferred, type Deferred } from '../rig/wait.ts';

/** One delivery that reached the channel. */
export interface Delivered {
  readonly notice: Notice;
  readonly replaces: string | undefined;
}

/** A channel whose deliveries a test can hold or make fail. */
export class HandChannel implements Channel {
  readonly label = 'by hand';
  /** Delivered notices, oldest first. */
  readonly arrived: Delivered[] = [];
  /** Number of deliveries that have started. */
  tries = 0;
  /** While this is set, each delivery throws it. */
  error: Error | undefined;
  #gate: Deferred<void> | undefined;

  /** Holds all deliveries until `release`. */
  hold(): void {
    this.#gate = deferred<void>();
  }

  release(): void {
    this.#gate?.resolve();
    this.#gate = undefined;
  }

  get events(): readonly string[] {
    return this.arrived.map(({ notice }) => notice.event);
  }

  /** The notices that a person sees now: the newest of each id. */
  get shown(): ReadonlyMap<string, Notice> {
    return new Map(this.arrived.map(({ notice }) => [notice.id, notice]));
  }

  async deliver(notice: Notice, replaces: string | undefined, signal: AbortSignal): Promise<Receipt> {
    this.tries += 1;
    if (this.#gate !== undefined) {
      const aborted = new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(new DeliveryError('failed', 'cut')), { once: true });
      });
      await Promise.race([this.#gate.promise, aborted]);
    }
    if (this.error !== undefined) throw this.error;
    this.arrived.push({ notice, replaces });
    return { replaces: `at ${this.arrived.length}` };
  }
}

export const DEAD = new DeliveryError('failed', 'ECONNREFUSED');

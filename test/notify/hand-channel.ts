import { type Channel, DeliveryError, type Receipt } from '../../src/notify/channels/channel.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { deferred, type Deferred } from '../rig/wait.ts';

/** One delivery as the channel got it. */
export interface Delivered {
  readonly notice: Notice;
  readonly replaces: string | undefined;
}

/** A channel that a test can hold up or break. */
export class HandChannel implements Channel {
  readonly label = 'by hand';
  /** Delivered notices, oldest first. */
  readonly arrived: Delivered[] = [];
  /** Deliveries that were begun. */
  tries = 0;
  /** Thrown by each delivery while it is set. */
  error: Error | undefined;
  #gate: Deferred<void> | undefined;

  /** Nothing arrives until `release`. */
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
      const cut = new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(new DeliveryError('failed', 'cut')), { once: true });
      });
      await Promise.race([this.#gate.promise, cut]);
    }
    if (this.error !== undefined) throw this.error;
    this.arrived.push({ notice, replaces });
    return { replaces: `at ${this.arrived.length}` };
  }
}

export const DEAD = new DeliveryError('failed', 'ECONNREFUSED');

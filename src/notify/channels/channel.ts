import type { Notice } from '../notice.ts';

/** One place where a person is notified. */
export interface Channel {
  /** For logs and for a person; holds no secret. */
  readonly label: string;
  /**
   * Says it, within a bounded time. `replaces` is what the last delivery with that id gave back.
   * @throws {DeliveryError} it has not arrived, as far as is known
   */
  deliver(notice: Notice, replaces: string | undefined, signal: AbortSignal): Promise<Receipt>;
}

export interface Receipt {
  /** What a later delivery needs to replace this one, where the notice's id is not enough. */
  readonly replaces?: string;
  /** For a person who tries the channel. */
  readonly remark?: string;
}

/**
 * Why a notice has not arrived.
 * - `failed`: another try may succeed
 * - `refused`: the other end took a look at it and does not want it
 * - `absent`: this machine has nothing to say it with
 */
export class DeliveryError extends Error {
  override readonly name = 'DeliveryError';
  readonly kind: 'failed' | 'refused' | 'absent';

  /** The message is safe to show and holds no secret. */
  constructor(kind: DeliveryError['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}

/** A channel hangs no longer than that; its queue waits meanwhile. */
export const DELIVERY_LIMIT_MS = 15_000;

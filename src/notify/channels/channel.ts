import type { Clock } from '../../base/clock.ts';
import { quoted } from '../../base/plain-text.ts';
import type { SecretRef } from '../../config/file/secret-ref.ts';
import type { Notice } from '../notice.ts';

/** Rejects with a message that holds no part of the secret. */
export type ReadSecret = (ref: SecretRef, signal: AbortSignal) => Promise<string | undefined>;

export interface ChannelDeps {
  readonly clock: Clock;
  readonly readSecret: ReadSecret;
}

/** A way to notify a person. */
export interface Channel {
  /** Safe to show: holds no secret. */
  readonly label: string;
  /**
   * Delivers within a bounded time. `replaces` is from the receipt of the last delivery with the same id.
   * @throws {DeliveryError} it has not arrived, as far as is known
   */
  deliver(notice: Notice, replaces: string | undefined, signal: AbortSignal): Promise<Receipt>;
}

export interface Receipt {
  /** What a later delivery needs to replace this one, beyond the notice's id. */
  readonly replaces?: string;
  /** A hint for a person who tries the channel. */
  readonly remark?: string;
}

/**
 * Why a notice has not arrived.
 * - `failed`: another try may succeed
 * - `refused`: the other end does not accept this notice
 * - `absent`: this machine lacks the program
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

/** A hanging channel holds up its own queue for this long. */
export const DELIVERY_LIMIT_MS = 15_000;

const MAX_QUOTED_CHARS = 200;

/** The other end's own words about a failure, as the end of a message; empty if there are none. */
export function saidSuffix(text: string): string {
  return text.trim() === '' ? '' : `; it says ${quoted(text, MAX_QUOTED_CHARS)}`;
}

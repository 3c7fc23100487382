import { messageOf } from '../../base/errors.ts';
import type { SecretRef } from '../../config/file/secret-ref.ts';
import { DeliveryError } from './channel.ts';

/** Rejects with a message that holds no part of the secret. */
export type ReadSecret = (ref: SecretRef, signal: AbortSignal) => Promise<string | undefined>;

/** @throws {DeliveryError} it cannot be read */
export async function secretOf(ref: SecretRef, read: ReadSecret, signal: AbortSignal): Promise<string> {
  try {
    const secret = (await read(ref, signal)) ?? '';
    // A header allows nothing else; a file with two lines is the wrong file.
    if (!/^[\x21-\x7e]+$/.test(secret))
      throw new Error('the secret has spaces, line breaks or characters beyond ASCII; expected one word');
    return secret;
  } catch (error) {
    throw new DeliveryError('failed', messageOf(error));
  }
}

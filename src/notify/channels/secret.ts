import { messageOf } from '../../base/errors.ts';
import type { SecretRef } from '../../config/file/secret-ref.ts';
import { DeliveryError, type ReadSecret } from './channel.ts';

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

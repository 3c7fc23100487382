import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { quoted } from '../../base/plain-text.ts';
import { exchangeAny, RequestError } from '../../http/exchange.ts';
import { DELIVERY_LIMIT_MS, DeliveryError } from './channel.ts';

const MAX_ANSWER_BYTES = 64 * 1024;
const MAX_QUOTED_CHARS = 200;

/** What is wrong with the notice itself, and would be each time. */
const REFUSALS: ReadonlySet<number> = new Set([400, 413, 415, 422]);

export interface JsonPost {
  readonly url: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Posts it and gives back the body of a 2xx. @throws {DeliveryError} */
export async function sendJson({ url, body, headers }: JsonPost, clock: Clock, signal: AbortSignal): Promise<string> {
  // A path or a query may be a secret.
  const label = `POST ${new URL(url).origin}`;
  const outgoing = {
    method: 'POST',
    url,
    headers: {
      ...headers,
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(body)),
      'user-agent': 'opencode-mcp',
    },
    body,
    // A kept connection that the server closes meanwhile would fail a request that is not repeated at once.
    pooled: false,
    label,
  };
  const limits = { clock, timeoutMs: DELIVERY_LIMIT_MS, maxBytes: MAX_ANSWER_BYTES, signal };
  const { status, text } = await exchangeAny(outgoing, limits).catch((error: unknown) => {
    throw new DeliveryError('failed', error instanceof RequestError ? error.message : `${label}: ${messageOf(error)}`);
  });
  if (status >= 200 && status < 300) return text;
  const said = text.trim() === '' ? '' : `; it says ${quoted(text, MAX_QUOTED_CHARS)}`;
  throw new DeliveryError(REFUSALS.has(status) ? 'refused' : 'failed', `${label}: HTTP ${status}${said}`);
}

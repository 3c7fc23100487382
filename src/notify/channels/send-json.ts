import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { exchangeAny, RequestError } from '../../http/exchange.ts';
import { DELIVERY_LIMIT_MS, DeliveryError, saidSuffix } from './channel.ts';

const MAX_ANSWER_BYTES = 64 * 1024;

/** The notice itself is wrong, so that another try would fail too. */
const REFUSALS: ReadonlySet<number> = new Set([400, 413, 415, 422]);

export interface JsonPost {
  readonly url: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Posts JSON and returns the body of a 2xx. @throws {DeliveryError} */
export async function sendJson({ url, body, headers }: JsonPost, clock: Clock, signal: AbortSignal): Promise<string> {
  // The path and the query may be secrets.
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
    // The server may close a kept connection meanwhile, which would fail this request.
    pooled: false,
    label,
  };
  const limits = { clock, timeoutMs: DELIVERY_LIMIT_MS, maxBytes: MAX_ANSWER_BYTES, signal };
  const { status, text } = await exchangeAny(outgoing, limits).catch((error: unknown) => {
    throw new DeliveryError('failed', error instanceof RequestError ? error.message : `${label}: ${messageOf(error)}`);
  });
  if (status >= 200 && status < 300) return text;
  const message = `${label}: HTTP ${status}${saidSuffix(text)}`;
  throw new DeliveryError(REFUSALS.has(status) ? 'refused' : 'failed', message);
}

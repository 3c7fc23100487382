import type { Agent, IncomingMessage, RequestOptions } from 'node:http';
import * as z from 'zod';
import type { Clock } from '../base/clock.ts';
import { errorCode, jsonOf } from '../base/errors.ts';
import { quoted, singleLine } from '../base/plain-text.ts';
import { within } from '../base/within.ts';
import { HttpCall, type Outgoing } from '../http/call.ts';
import { basicAuthorization, type Exchange, exchangeAny, RequestError } from '../http/exchange.ts';
import { type LocalApiAddress, shownAddress } from './address.ts';
import { LocalApiError, type LocalApiFailure } from './types.ts';

/** One request to the LocalAPI. */
export interface Asking {
  readonly address: LocalApiAddress;
  readonly method: 'GET' | 'POST';
  /** After `/localapi/v0/`, query included. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Reuses connections; only for requests that may be sent twice. Unset: a new connection each time. */
  readonly agent?: Agent;
  readonly timeoutMs: number;
  readonly maxBytes: number;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
}

/** tailscaled refuses other names, and any Origin or Referer, against DNS rebinding. */
const HOST = 'local-tailscaled.sock';

const MAX_REASON_CHARS = 200;

/** One bounded exchange with any status. Rejects with `LocalApiError`, or the signal's reason. */
export function exchangeLocal(asking: Asking): Promise<Exchange> {
  return exchangeAny(outgoingOf(asking), asking).catch((error: unknown) => {
    throw localError(error, asking);
  });
}

/** A response whose body continues until `signal` aborts; only its headers have a time limit. */
export async function openLocal(asking: Asking): Promise<IncomingMessage> {
  const call = new HttpCall(outgoingOf(asking), asking.signal);
  try {
    const response = await bounded(asking, () => call.headers());
    response.once('close', () => call.end());
    return response;
  } catch (error) {
    call.end();
    throw localError(error, asking);
  }
}

/** Runs `work` within the time limit and the signal. */
export function bounded<T>(asking: Asking, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { clock, signal, timeoutMs: ms } = asking;
  const late = (): Error => failure('failed', asking, `no complete answer within ${ms} ms`);
  return within({ clock, ms, late, signal }, work);
}

/** The target of a request, for node:http. */
export function targetOf({ address, path, headers }: Asking): Pick<Outgoing, 'url' | 'headers'> & {
  readonly via: Pick<RequestOptions, 'socketPath'>;
} {
  const isSocket = address.kind === 'socket';
  return {
    url: `http://127.0.0.1${isSocket ? '' : `:${address.port}`}/localapi/v0/${path}`,
    headers: {
      host: HOST,
      ...(!isSocket && { authorization: basicAuthorization({ username: '', password: address.token }) }),
      ...headers,
    },
    via: isSocket ? { socketPath: address.path } : {},
  };
}

function outgoingOf(asking: Asking): Outgoing {
  const { method, agent } = asking;
  const { via, ...target } = targetOf(asking);
  return { ...target, method, pooled: agent !== undefined, label: triedOf(asking), via: { ...via, agent } };
}

export function failure(kind: LocalApiFailure, asking: Asking, what: string, cause?: unknown): LocalApiError {
  return new LocalApiError(kind, `${triedOf(asking)}: ${what}`, { cause });
}

function triedOf({ path, address }: Asking): string {
  return `Tailscale's LocalAPI at ${singleLine(shownAddress(address), MAX_REASON_CHARS)}, ${path.split('?', 1)[0]}`;
}

/** By the code of a failed connect. */
const UNREACHABLE: ReadonlyMap<unknown, readonly [LocalApiFailure, string]> = new Map([
  [
    'ENOENT',
    ['missing', 'there is no such socket; install and start tailscaled, or set TAILSCALE_SOCKET to its socket'],
  ],
  ['ECONNREFUSED', ['missing', 'nothing listens there; start tailscaled (systemctl start tailscaled, or the app)']],
  ['EACCES', ['denied', 'this user may not open it (EACCES); open the socket for it, or run as a user who may']],
  ['EPERM', ['denied', 'this user may not open it (EPERM); open the socket for it, or run as a user who may']],
]);

/** Converts the error of a failed request; throws the signal's reason if that aborted. */
export function localError(error: unknown, asking: Asking): unknown {
  asking.signal?.throwIfAborted();
  if (!(error instanceof RequestError)) return error;
  const [kind, what] = UNREACHABLE.get(errorCode(error.cause)) ?? [];
  return kind === undefined || what === undefined
    ? new LocalApiError('failed', error.message, { cause: error })
    : failure(kind, asking, what, error);
}

/** The error for an error status, with tailscaled's own words. */
export function refused({ status, text }: Pick<Exchange, 'status' | 'text'>, asking: Asking): LocalApiError {
  const message = messageIn(text);
  const detail = `HTTP ${status}${message === '' ? '' : `, it answered ${quoted(message, MAX_REASON_CHARS)}`}`;
  if (status !== 403) return failure('failed', asking, detail);
  return failure('denied', asking, `${detail}; run as root, or as the operator (tailscale set --operator=USER)`);
}

const messageSchema = z.union([
  z.object({ error: z.string() }).transform(({ error }) => error),
  z.object({ Error: z.string() }).transform(({ Error: message }) => message),
]);

/** Errors are plain text, `{"error"}` or `{"Error"}`. */
function messageIn(text: string): string {
  return messageSchema.safeParse(jsonOf(text)).data ?? text.trim();
}

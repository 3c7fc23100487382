import { errorCode, messageOf } from '../base/errors.ts';
import { NotDialledError } from '../base/dial.ts';

/**
 * Why a request got no usable answer.
 * - `unreachable`: no connection, or a proxy did not forward it (with its `status`); the server has not received it
 * - `broken`: the connection ended without an answer; the server may have acted on it
 * - `timeout`: no complete answer in time; the server may have acted on it
 * - `cancelled`: the caller's signal aborted
 * - `locked`: 401
 * - `status`: any other error status
 * - `malformed`: a redirect, HTML, or a body that does not parse: not an opencode, or an unknown version
 * - `too-large`: the answer exceeds the limit; the server is reachable
 */
export type FailureKind =
  | 'unreachable'
  | 'broken'
  | 'timeout'
  | 'cancelled'
  | 'locked'
  | 'status'
  | 'malformed'
  | 'too-large';

export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly kind: FailureKind;
  readonly status: number | undefined;
  /** Why the password was not sent. `unreachable`: nothing was sent; `locked`: the request without it was answered with 401. */
  readonly withheld: string | undefined;
  /** The body of an error status, if it was read. */
  readonly answer: string | undefined;
  /** The challenge of a 401, as sent. */
  readonly challenge: string | undefined;

  constructor(
    kind: FailureKind,
    message: string,
    options: { status?: number; cause?: unknown; withheld?: string; answer?: string; challenge?: string } = {},
  ) {
    super(message, { cause: options.cause });
    this.kind = kind;
    this.status = options.status;
    this.withheld = options.withheld;
    this.answer = options.answer;
    this.challenge = options.challenge;
  }
}

/** Whether the server may have acted on the request: it got no answer, or one from a proxy that does not know. */
export function mayHaveActed({ kind, status = 0 }: RequestError): boolean {
  return ['broken', 'timeout', 'malformed', 'too-large'].includes(kind) || (kind === 'status' && status >= 500);
}

/** Node's codes for certificates that this machine does not trust. */
const CERTIFICATE_CODES = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);

/** This process or machine is out of file descriptors; nothing is wrong with the other end. */
export const OUT_OF_FILES = new Set(['EMFILE', 'ENFILE']);

/** Codes of a failed connect: not one byte of the request was sent. */
const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EADDRNOTAVAIL',
  ...CERTIFICATE_CODES,
  ...OUT_OF_FILES,
]);

/** Converts a socket error. `connected`: the request may have been sent. */
export function networkError(error: Error, label: string, connected: boolean): RequestError {
  if (error instanceof NotDialledError)
    return new RequestError('unreachable', `${label}: ${error.message}`, { cause: error });
  // A host with several addresses gives an AggregateError.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const code = errorCode(first) ?? errorCode(error);
  // ETIMEDOUT may be from a connect or from a read.
  const never = code !== undefined && (NEVER_CONNECTED.has(code) || (code === 'ETIMEDOUT' && !connected));
  const reason = code === undefined ? messageOf(first) : explained(code);
  return new RequestError(never ? 'unreachable' : 'broken', `${label}: ${reason}`, { cause: error });
}

/** An error code with its meaning, unless its name says it. */
function explained(code: string): string {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `${code}, its certificate is for another host; write the URL with a name that it is for`;
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID')
    return `${code} by this machine's clock; renew its certificate there, or set the clock`;
  if (CERTIFICATE_CODES.has(code))
    return `${code}, this machine does not trust its certificate; NODE_EXTRA_CA_CERTS can name a file of further authorities`;
  if (OUT_OF_FILES.has(code))
    return `too many open files on this machine (${code}), nothing was sent; raise "ulimit -n" where this program starts`;
  if (code === 'ENOTFOUND') return `${code}, no such host`;
  if (code.startsWith('HPE_')) return `${code}, the server does not speak HTTP`;
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) return `${code}, the server does not speak HTTPS`;
  return code;
}

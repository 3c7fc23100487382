import { errorCode, messageOf } from '../base/errors.ts';
import { NotDialledError } from '../base/dial.ts';

/**
 * Why a request gave no usable answer.
 * - `unreachable`: no connection was made, or a proxy did not pass it on (with its `status`), so the server has seen nothing of it
 * - `broken`: the connection ended without an answer; the server may have acted on the request
 * - `timeout`: no complete answer in time; the server may have acted on it
 * - `cancelled`: the caller's signal aborted
 * - `locked`: 401
 * - `status`: any other error status
 * - `malformed`: a redirect, HTML, or a body that does not parse: not an opencode, or not one we know
 * - `too-large`: an answer that was not read to its end; the server is there
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
  /** Why the password was not sent: with `unreachable` nothing was, with `locked` the answer to the rest was 401. */
  readonly withheld: string | undefined;
  /** The body of an error status, where it was read. */
  readonly answer: string | undefined;
  /** What a 401 asks for, as the server wrote it. */
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

/** Whether the server may have acted on the request: no answer came, or one of something in between that knows no more. */
export function mayHaveActed({ kind, status = 0 }: RequestError): boolean {
  return ['broken', 'timeout', 'malformed', 'too-large'].includes(kind) || (kind === 'status' && status >= 500);
}

/** The other end has no certificate that this machine trusts: Node's codes for it. */
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

/** This process, or this machine, may open no more files: nothing is wrong with the other end. */
export const OUT_OF_FILES = new Set(['EMFILE', 'ENFILE']);

/** Codes with which no connection came about, so that not one byte of the request was sent. */
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

/** Converts a socket error. `connected`: the request may have left this machine. */
export function networkError(error: Error, label: string, connected: boolean): RequestError {
  if (error instanceof NotDialledError)
    return new RequestError('unreachable', `${label}: ${error.message}`, { cause: error });
  // Several addresses of one host make it an AggregateError.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const code = errorCode(first) ?? errorCode(error);
  // A connect that ran out of time has the same code as a read that did.
  const never = code !== undefined && (NEVER_CONNECTED.has(code) || (code === 'ETIMEDOUT' && !connected));
  return new RequestError(
    never ? 'unreachable' : 'broken',
    `${label}: ${code === undefined ? messageOf(first) : explained(code)}`,
    {
      cause: error,
    },
  );
}

/** A code of Node's, with what it means where that is not in its name. */
function explained(code: string): string {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `${code}, its certificate is for another host; write the URL with a name that it is for`;
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID')
    return `${code} by this machine's clock; renew its certificate there, or set the clock`;
  if (CERTIFICATE_CODES.has(code))
    return `${code}, this machine does not trust its certificate; NODE_EXTRA_CA_CERTS can name a file of further authorities`;
  if (OUT_OF_FILES.has(code))
    return `too many open files on this machine (${code}), nothing was sent; raise "ulimit -n" where this program starts`;
  if (code === 'ENOTFOUND') return `${code}, there is no host of that name`;
  if (code.startsWith('HPE_')) return `${code}, what answers there does not speak HTTP`;
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) return `${code}, what answers there does not speak HTTPS`;
  return code;
}

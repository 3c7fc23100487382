/** JSON-RPC, as both eras of the protocol speak it. */
export type RequestId = string | number;
export type Params = Readonly<Record<string, unknown>>;

/** A message that this server sends. */
export type OwnMessage = Readonly<Record<string, unknown>>;

export const INVALID_REQUEST = -32_600;
export const METHOD_NOT_FOUND = -32_601;
export const INVALID_PARAMS = -32_602;
export const INTERNAL_ERROR = -32_603;

/** An error that is sent to the client as it is. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: number;
  readonly data?: unknown;

  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.code = code;
    if (data !== undefined) this.data = data;
  }
}

export function invalidParams(message: string): RpcError {
  return new RpcError(INVALID_PARAMS, message);
}

export function unknownMethod(method: string): RpcError {
  return new RpcError(METHOD_NOT_FOUND, `Method not found: ${JSON.stringify(method.slice(0, 100))}`);
}

/** A required string parameter. @throws {RpcError} */
export function textIn(params: Params, key: string, where = 'params'): string {
  const value = params[key];
  if (typeof value !== 'string') throw misfit(`${where}.${key}`, 'string', value);
  return value;
}

/** An optional string parameter. @throws {RpcError} */
export function optionalTextIn(params: Params, key: string): string | undefined {
  return params[key] === undefined ? undefined : textIn(params, key);
}

/** A required object parameter. @throws {RpcError} */
export function objectIn(params: Params, key: string, where = 'params'): Params {
  const value = params[key];
  if (!isObject(value)) throw misfit(`${where}.${key}`, 'object', value);
  return value;
}

/** An optional object whose values must be strings; empty if it is missing. @throws {RpcError} */
export function textsIn(params: Params, key: string, where = 'params'): Readonly<Record<string, string>> {
  if (params[key] === undefined) return {};
  const object = objectIn(params, key, where);
  return Object.fromEntries(Object.keys(object).map((name) => [name, textIn(object, name, `${where}.${key}`)]));
}

/** `1e400` parses as Infinity, which JSON cannot write: no answer could carry that id. */
export function isRequestId(value: unknown): value is RequestId {
  return typeof value === 'string' || Number.isFinite(value);
}

export function isObject(value: unknown): value is Params {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Keys are the client's and may be of any length. */
const MAX_PATH_CHARS = 200;

function misfit(path: string, expected: string, value: unknown): RpcError {
  const received = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  return invalidParams(
    `The request does not fit: ${path.slice(0, MAX_PATH_CHARS)}: expected ${expected}, received ${received}`,
  );
}

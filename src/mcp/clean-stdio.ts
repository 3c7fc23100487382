import type { Readable, Writable } from 'node:stream';

import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import {
  ErrorCode,
  type JSONRPCErrorResponse,
  type JSONRPCMessage,
  JSONRPCMessageSchema,
  JSONRPCRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { safeToShow, singleLine } from '../base/plain-text.ts';

/** The SDK's own limit. */
const MAX_LINE_BYTES = 10 * 1024 * 1024;
/** As deep as the protocol's own objects go: `params.capabilities.elicitation.form`. */
const MAX_DEPTH = 4;
const LINE_FEED = 10;

/**
 * Standard input and output, with the first and the last look at every message. Messages are read as clients write them, and a
 * request that is none is answered too. Whatever leaves by text, structure, progress, resource, log, form or error holds no
 * character that a client would act on or not show. Ids and tokens of the client's go back as they came.
 */
export class CleanStdio extends StdioServerTransport {
  readonly #input: Readable;
  #rest: Buffer = Buffer.alloc(0);

  constructor(input: Readable = process.stdin, output: Writable = process.stdout) {
    super(input, output);
    this.#input = input;
  }

  /** Not the SDK's: it drops what does not fit its schema without an answer, and some clients write `null` for "nothing" anywhere. */
  override async start(): Promise<void> {
    this.#input.on('data', this.#read);
  }

  override async close(): Promise<void> {
    this.#input.off('data', this.#read);
    await super.close();
  }

  override async send(message: JSONRPCMessage): Promise<void> {
    await super.send(cleaned(message));
  }

  readonly #read = (chunk: Buffer): void => {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const end = this.#rest.lastIndexOf(LINE_FEED);
    const lines = end === -1 ? [] : this.#rest.toString('utf8', 0, end).split('\n');
    this.#rest = this.#rest.subarray(end + 1);
    for (const line of lines) this.#take(parsed(line));
    if (this.#rest.length <= MAX_LINE_BYTES) return;
    this.onerror?.(new Error(`a message is longer than ${MAX_LINE_BYTES} bytes`));
    void this.close();
  };

  #take(value: unknown): void {
    const message = JSONRPCMessageSchema.safeParse(asRead(value));
    if (message.success) {
      this.onmessage?.(message.data);
      return;
    }
    const request = JSONRPCRequestSchema.safeParse(asRead(value));
    const problem = `the message does not fit: ${inWords(request.error?.issues ?? [])}`;
    this.onerror?.(new Error(problem));
    const { jsonrpc, id, method } = Object(value) as Readonly<Record<string, unknown>>;
    if (jsonrpc !== '2.0' || typeof method !== 'string' || (typeof id !== 'string' && typeof id !== 'number')) return;
    void this.send({ jsonrpc, id, error: { code: ErrorCode.InvalidRequest, message: problem } });
  }
}

function asRead(message: unknown): unknown {
  if (typeof message !== 'object' || message === null) return message;
  const { params, result, ...rest } = message as Readonly<Record<string, unknown>>;
  return {
    ...rest,
    ...(isPresent(params) && { params: withArguments(withoutNulls(params)) }),
    ...(isPresent(result) && { result: withoutNulls(result) }),
  };
}

/** PHP writes an empty object as `[]`, and some clients write the object as text. */
function withArguments(params: unknown): unknown {
  if (typeof params !== 'object' || params === null || !('arguments' in params)) return params;
  const { arguments: given } = params;
  const value = given === '' ? {} : (parsed(given) ?? {});
  return { ...params, arguments: Array.isArray(value) && value.length === 0 ? {} : withoutNulls(value) };
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** `null` stands for what is left out; in a list it keeps its place. */
function withoutNulls(value: unknown, depth = MAX_DEPTH): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || depth === 0) return value;
  const entries = Object.entries(value).filter(([, one]) => isPresent(one));
  return Object.fromEntries(entries.map(([key, one]) => [key, withoutNulls(one, depth - 1)]));
}

function cleaned(message: JSONRPCMessage): JSONRPCMessage {
  if ('result' in message) return { ...message, result: safeToShow(message.result) };
  if ('error' in message) return { ...message, error: safeToShow(readable(message.error)) };
  const { params } = message;
  if (params === undefined) return message;
  const token = params['progressToken'];
  return { ...message, params: { ...safeToShow(params), ...(token !== undefined && { progressToken: token }) } };
}

/** What JSON text stands for; anything else as it is. */
export function parsed(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}

type RpcError = JSONRPCErrorResponse['error'];

/** Of zod's. */
interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

const MAX_ISSUES = 5;
const MAX_ISSUE_CHARS = 200;

/** The SDK answers a request that does not fit its schema with zod's issues as JSON of several lines. */
function readable(error: RpcError): RpcError {
  const start = error.message.indexOf('[\n  {');
  const issues = start === -1 ? undefined : parsed(error.message.slice(start));
  if (!Array.isArray(issues)) return error;
  return { code: ErrorCode.InvalidParams, message: `The request does not fit: ${inWords(issues as readonly Issue[])}` };
}

function inWords(issues: readonly Issue[]): string {
  return issues
    .slice(0, MAX_ISSUES)
    .map(({ path, message }) => singleLine([path.join('.'), message].filter(Boolean).join(': '), MAX_ISSUE_CHARS))
    .join('; ');
}

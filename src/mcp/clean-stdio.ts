import type { Readable, Writable } from 'node:stream';

import { safeToShow } from '../base/plain-text.ts';
import { isObject, type OwnMessage } from './wire.ts';

/** The SDK's own limit. */
const MAX_LINE_BYTES = 10 * 1024 * 1024;
/** The protocol's own objects are no deeper: `params.capabilities.elicitation.form`. */
const MAX_DEPTH = 4;
const LINE_FEED = 10;

export interface Incoming {
  /** Called with each line: parsed if it is JSON, otherwise the text. */
  readonly onMessage: (message: unknown) => void;
  /** Called when a message is too long, with the reason. Nothing is read after that. */
  readonly onTooLong: (reason: string) => void;
}

/**
 * Reads and writes every message, of both eras, on standard input and output. It accepts the odd JSON that clients write. It
 * removes unsafe characters from everything that it sends, except the client's own ids and tokens.
 */
export class CleanStdio {
  readonly #input: Readable;
  readonly #output: Writable;
  #incoming: Incoming | undefined;
  /** Pieces of an unfinished line. */
  #rest: Buffer[] = [];
  #restBytes = 0;

  constructor(input: Readable = process.stdin, output: Writable = process.stdout) {
    this.#input = input;
    this.#output = output;
  }

  start(incoming: Incoming): void {
    this.#incoming = incoming;
    this.#input.on('data', this.#read);
  }

  /** Stops reading. */
  close(): void {
    this.#input.off('data', this.#read);
    this.#input.pause();
    this.#rest = [];
  }

  /** Resolves when the client has room for the next message; never rejects. */
  send(message: OwnMessage): Promise<void> {
    return new Promise((resolve) => {
      if (this.#output.write(`${JSON.stringify(cleaned(message))}\n`)) resolve();
      else this.#output.once('drain', resolve);
    });
  }

  readonly #read = (chunk: Buffer): void => {
    const end = chunk.lastIndexOf(LINE_FEED);
    if (end === -1) this.#keep(chunk);
    else {
      const lines = Buffer.concat([...this.#rest, chunk.subarray(0, end)]);
      this.#rest = [];
      this.#restBytes = 0;
      for (const line of lines.toString('utf8').split('\n')) this.#incoming?.onMessage(normalized(parsed(line)));
      this.#keep(chunk.subarray(end + 1));
    }
    if (this.#restBytes <= MAX_LINE_BYTES) return;
    this.close();
    this.#incoming?.onTooLong(`a message is longer than ${MAX_LINE_BYTES} bytes`);
  };

  #keep(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#rest.push(piece);
    this.#restBytes += piece.length;
  }
}

function normalized(message: unknown): unknown {
  if (!isObject(message)) return message;
  const { params, result, ...rest } = message;
  return {
    ...rest,
    ...(isPresent(params) && { params: withArguments(withoutNulls(params)) }),
    ...(isPresent(result) && { result: withoutNulls(result) }),
  };
}

/** PHP writes an empty object as `[]`; some clients send the object as a string. */
function withArguments(params: unknown): unknown {
  if (typeof params !== 'object' || params === null || !('arguments' in params)) return params;
  const { arguments: given } = params;
  const value = given === '' ? {} : (parsed(given) ?? {});
  return { ...params, arguments: Array.isArray(value) && value.length === 0 ? {} : withoutNulls(value) };
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** `null` means that a field is missing. In a list it stays, to keep the order. */
function withoutNulls(value: unknown, depth = MAX_DEPTH): unknown {
  if (!isObject(value) || depth === 0) return value;
  const entries = Object.entries(value).filter(([, one]) => isPresent(one));
  return Object.fromEntries(entries.map(([key, one]) => [key, withoutNulls(one, depth - 1)]));
}

function cleaned(message: OwnMessage): OwnMessage {
  const { result, error, params } = message;
  if (result !== undefined) return { ...message, result: withSubscriptionId(result, safeToShow(result)) };
  if (error !== undefined) return { ...message, error: safeToShow(error) };
  if (!isObject(params)) return message;
  const token = params['progressToken'];
  return {
    ...message,
    params: {
      ...(withSubscriptionId(params, safeToShow(params)) as object),
      ...(token !== undefined && { progressToken: token }),
    },
  };
}

const SUBSCRIPTION_ID = 'io.modelcontextprotocol/subscriptionId';

/** Puts back the subscription id: it is the id of a client's request. */
function withSubscriptionId(original: unknown, clean: unknown): unknown {
  const meta = isObject(original) ? original['_meta'] : undefined;
  if (!isObject(meta) || !(SUBSCRIPTION_ID in meta) || !isObject(clean)) return clean;
  return { ...clean, _meta: { ...(clean['_meta'] as object), [SUBSCRIPTION_ID]: meta[SUBSCRIPTION_ID] } };
}

/** The value of JSON text; any other value is returned as it is. */
export function parsed(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}

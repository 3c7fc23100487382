import type { Readable, Writable } from 'node:stream';

import { safeToShow } from '../base/plain-text.ts';
import { isObject } from './wire.ts';

/** As the SDK of the protocol limits it. */
const MAX_LINE_BYTES = 10 * 1024 * 1024;
/** As deep as the protocol's own objects go: `params.capabilities.elicitation.form`. */
const MAX_DEPTH = 4;
const LINE_FEED = 10;

/** A message of ours. */
export type OwnMessage = Readonly<Record<string, unknown>>;

/**
 * Standard input and output, with the first and the last look at every message, whichever era it is of. Messages are read as
 * clients write them. Whatever leaves by text, structure, progress, resource, log, form or error holds no character that a client
 * would act on or not show. Ids and tokens of the client's go back as they came.
 */
export class CleanStdio {
  /** Gets what stands on each line: JSON as what it stands for, anything else as text. */
  onmessage: (message: unknown) => void = () => {};
  onerror: (error: Error) => void = () => {};
  /** A message was too long: nothing is read any more. */
  onclose: () => void = () => {};
  readonly #input: Readable;
  readonly #output: Writable;
  /** Pieces of a line that has not ended. */
  #rest: Buffer[] = [];
  #restBytes = 0;

  constructor(input: Readable = process.stdin, output: Writable = process.stdout) {
    this.#input = input;
    this.#output = output;
  }

  start(): void {
    this.#input.on('data', this.#read);
  }

  close(): void {
    this.#input.off('data', this.#read);
    this.#input.pause();
    this.#rest = [];
    this.onclose();
  }

  /** Resolves once there is room for the next. */
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
      for (const line of lines.toString('utf8').split('\n')) this.onmessage(asRead(parsed(line)));
      this.#keep(chunk.subarray(end + 1));
    }
    if (this.#restBytes <= MAX_LINE_BYTES) return;
    this.onerror(new Error(`a message is longer than ${MAX_LINE_BYTES} bytes`));
    this.close();
  };

  #keep(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#rest.push(piece);
    this.#restBytes += piece.length;
  }
}

function asRead(message: unknown): unknown {
  if (!isObject(message)) return message;
  const { params, result, ...rest } = message;
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
  if (!isObject(value) || depth === 0) return value;
  const entries = Object.entries(value).filter(([, one]) => isPresent(one));
  return Object.fromEntries(entries.map(([key, one]) => [key, withoutNulls(one, depth - 1)]));
}

function cleaned(message: OwnMessage): OwnMessage {
  const { result, error, params } = message;
  if (result !== undefined) return { ...message, result: withIds(result, safeToShow(result)) };
  if (error !== undefined) return { ...message, error: safeToShow(error) };
  if (!isObject(params)) return message;
  const token = params['progressToken'];
  return {
    ...message,
    params: {
      ...(withIds(params, safeToShow(params)) as object),
      ...(token !== undefined && { progressToken: token }),
    },
  };
}

const SUBSCRIPTION_ID = 'io.modelcontextprotocol/subscriptionId';

/** The id of a client's request stands in what belongs to it. */
function withIds(given: unknown, clean: unknown): unknown {
  const meta = isObject(given) ? given['_meta'] : undefined;
  if (!isObject(meta) || !(SUBSCRIPTION_ID in meta) || !isObject(clean)) return clean;
  return { ...clean, _meta: { ...(clean['_meta'] as object), [SUBSCRIPTION_ID]: meta[SUBSCRIPTION_ID] } };
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

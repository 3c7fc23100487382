import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { ErrorCode, type JSONRPCErrorResponse, type JSONRPCMessage } from '@modelcontextprotocol/sdk/types.js';

import { safeToShow } from '../base/plain-text.ts';

/**
 * Standard input and output, with the first and the last look at every message. Requests are read as clients write them.
 * Whatever leaves by text, structure, progress, resource, log, form or error holds no character that a client would act on
 * or not show. Ids and tokens of the client's go back as they came.
 */
export class CleanStdio extends StdioServerTransport {
  override async start(): Promise<void> {
    const { onmessage } = this;
    // The SDK refuses what some clients write for "nothing", before any handler sees it.
    this.onmessage = (message) => onmessage?.(asRead(message));
    await super.start();
  }

  override async send(message: JSONRPCMessage): Promise<void> {
    await super.send(cleaned(message));
  }
}

function asRead(message: JSONRPCMessage): JSONRPCMessage {
  if (!('method' in message) || message.params === undefined) return message;
  const { arguments: given = {}, ...params } = withoutNulls(message.params);
  return { ...message, params: { ...params, ...('arguments' in message.params && { arguments: object(given) }) } };
}

/** PHP writes an empty object as `[]`, and some clients write the object as text. */
function object(given: unknown): unknown {
  const value = given === '' ? {} : (parsed(given) ?? {});
  if (Array.isArray(value) && value.length === 0) return {};
  return typeof value === 'object' && !Array.isArray(value) ? withoutNulls(value) : value;
}

/** `null` stands for what is left out. */
function withoutNulls(value: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== null));
}

function cleaned(message: JSONRPCMessage): JSONRPCMessage {
  if ('result' in message) return { ...message, result: safeToShow(message.result) };
  if ('error' in message) return { ...message, error: safeToShow(inWords(message.error)) };
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
  readonly path: readonly (string | number)[];
  readonly message: string;
}

const MAX_ISSUES = 5;

/** The SDK answers a request that does not fit its schema with zod's issues as JSON of several lines. */
function inWords(error: RpcError): RpcError {
  const start = error.message.indexOf('[\n  {');
  const issues = start === -1 ? undefined : parsed(error.message.slice(start));
  if (!Array.isArray(issues)) return error;
  const words = (issues as readonly Issue[])
    .slice(0, MAX_ISSUES)
    .map(({ path, message }) => `${path.join('.')}: ${message}`);
  return { code: ErrorCode.InvalidParams, message: `The request does not fit: ${words.join('; ')}` };
}

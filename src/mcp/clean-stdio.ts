import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import type { JSONRPCMessage } from '@modelcontextprotocol/sdk/types.js';

import { safeToShow } from '../base/plain-text.ts';

/**
 * Standard input and output, with the last look at every message: whatever leaves by text, structure, progress, resource,
 * log, form or error holds no character that a client would act on or not show. Ids and tokens of the client's go back as they came.
 */
export class CleanStdio extends StdioServerTransport {
  override async send(message: JSONRPCMessage): Promise<void> {
    await super.send(cleaned(message));
  }
}

function cleaned(message: JSONRPCMessage): JSONRPCMessage {
  if ('result' in message) return { ...message, result: safeToShow(message.result) };
  if ('error' in message) return { ...message, error: safeToShow(message.error) };
  const { params } = message;
  if (params === undefined) return message;
  const token = params['progressToken'];
  return { ...message, params: { ...safeToShow(params), ...(token !== undefined && { progressToken: token }) } };
}

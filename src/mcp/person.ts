import type { Server } from '@modelcontextprotocol/sdk/server/index.js';
import {
  type ElicitRequestFormParams,
  ElicitResultSchema,
  ErrorCode,
  McpError,
} from '@modelcontextprotocol/sdk/types.js';

import type { AskPerson, Question } from '../operations/runtime.ts';

/** Servers that have sent a request to their client. */
const begun = new WeakSet<Server>();

/** The first request of a connection has the id 0, which clients of the SDK (1.32) do not find again when it is cancelled: it must not be a form. */
function takeFirstId(server: Server): void {
  if (begun.has(server)) return;
  begun.add(server);
  server.ping().catch(() => {});
}

/**
 * Asks the person by elicitation; undefined where the client cannot. A decline, a cancel and silence until the time is up are
 * no answer; a client takes the form away when the signal aborts.
 */
export function personAsker(server: Server): AskPerson | undefined {
  const { elicitation } = server.getClientCapabilities() ?? {};
  // Before 2025-11-25 an empty object meant forms.
  if (elicitation === undefined || (elicitation.form === undefined && elicitation.url !== undefined)) return undefined;
  return async (question, { timeoutMs, signal }) => {
    takeFirstId(server);
    try {
      // Not `elicitInput`: that needs a JSON schema validator, of 120 KB, for what the caller checks anyway.
      const { action, content } = await server.request(
        { method: 'elicitation/create', params: paramsOf(question) },
        ElicitResultSchema,
        { timeout: timeoutMs, signal },
      );
      if (action !== 'accept' || content === undefined) return undefined;
      const texts = Object.entries(content).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
      return Object.fromEntries(texts);
    } catch (error) {
      const isLate = error instanceof McpError && error.code === (ErrorCode.RequestTimeout as number);
      if (signal.aborted || isLate) return undefined;
      throw error;
    }
  };
}

function paramsOf({ message, fields, required }: Question): ElicitRequestFormParams {
  const properties = Object.entries(fields).map(([name, { title, description, choices }]) => [
    name,
    {
      type: 'string',
      title,
      ...(description !== undefined && { description }),
      ...(choices !== undefined && { enum: [...choices] }),
    },
  ]);
  return {
    mode: 'form',
    message,
    requestedSchema: {
      type: 'object',
      properties: Object.fromEntries(properties) as ElicitRequestFormParams['requestedSchema']['properties'],
      required: [...required],
    },
  };
}

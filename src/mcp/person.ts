import type { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { ErrorCode, McpError } from '@modelcontextprotocol/sdk/types.js';

import type { AskPerson, Question } from '../operations/runtime.ts';

/**
 * Asks the person by elicitation; undefined where the client cannot. A decline, a cancel and silence until the time is up are
 * no answer. `signal` is the call's: a client that gives the call up takes the form away.
 */
export function personAsker(server: Server, signal: AbortSignal): AskPerson | undefined {
  const { elicitation } = server.getClientCapabilities() ?? {};
  // Before 2025-11-25 an empty object meant forms.
  if (elicitation === undefined || (elicitation.form === undefined && elicitation.url !== undefined)) return undefined;
  return async (question, timeout) => {
    try {
      const { action, content } = await server.elicitInput(
        { mode: 'form', message: question.message, requestedSchema: schemaOf(question) },
        { timeout, signal },
      );
      if (action !== 'accept' || content === undefined) return undefined;
      const texts = Object.entries(content).flatMap(([name, value]) =>
        typeof value === 'string' ? [[name, value] as const] : [],
      );
      return Object.fromEntries(texts);
    } catch (error) {
      if (signal.aborted || (error instanceof McpError && error.code === (ErrorCode.RequestTimeout as number)))
        return undefined;
      throw error;
    }
  };
}

type Schema = Extract<Parameters<Server['elicitInput']>[0], { requestedSchema: unknown }>['requestedSchema'];

function schemaOf({ fields, required }: Question): Schema {
  const properties = Object.entries(fields).map(([name, { title, description, choices }]) => [
    name,
    {
      type: 'string' as const,
      title,
      ...(description !== undefined && { description }),
      ...(choices !== undefined && { enum: [...choices] }),
    },
  ]);
  return {
    type: 'object',
    properties: Object.fromEntries(properties) as Schema['properties'],
    required: [...required],
  };
}

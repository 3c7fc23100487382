import type { Server } from '@modelcontextprotocol/sdk/server/index.js';
import {
  type ElicitRequestFormParams,
  ElicitResultSchema,
  ErrorCode,
  McpError,
} from '@modelcontextprotocol/sdk/types.js';

import type { Clock } from '../clock.ts';
import type { AskPerson, PersonAnswer, Question } from '../operations/runtime.ts';
import { singleLine } from '../plain-text.ts';

/**
 * Nobody reads a form and answers it in less. Clients that answer by themselves (Claude Code headless, Codex that asks for
 * nothing, VS Code) do so within milliseconds.
 */
const FASTEST_PERSON_MS = 500;
const MAX_REASON_CHARS = 200;

/** Servers that have sent a request to their client. */
const begun = new WeakSet<Server>();

/** The first request of a connection has the id 0, which clients of the SDK (1.32) do not find again when it is cancelled: it must not be a form. */
function takeFirstId(server: Server): void {
  if (begun.has(server)) return;
  begun.add(server);
  server.ping().catch(() => {});
}

/** Asks the person by elicitation; undefined where the client cannot. A client takes the form away when the signal aborts. */
export function personAsker(server: Server, clock: Clock): AskPerson | undefined {
  const { elicitation } = server.getClientCapabilities() ?? {};
  // Before 2025-11-25 an empty object meant forms.
  if (elicitation === undefined || (elicitation.form === undefined && elicitation.url !== undefined)) return undefined;
  return async (question, { timeoutMs, signal }) => {
    takeFirstId(server);
    const askedMs = clock.now();
    const elapsedMs = (): number => clock.now() - askedMs;
    let answer: PersonAnswer;
    try {
      // Not `elicitInput`: that needs a JSON schema validator, of 120 KB, for what the caller checks anyway.
      const { action, content = {} } = await server.request(
        { method: 'elicitation/create', params: paramsOf(question) },
        ElicitResultSchema,
        { timeout: timeoutMs, signal },
      );
      if (elapsedMs() < FASTEST_PERSON_MS)
        answer = { kind: 'unavailable', reason: `it answered within ${FASTEST_PERSON_MS} ms, as no person does` };
      else if (action === 'accept') answer = { kind: 'accepted', fields: textsOf(content) };
      else answer = { kind: action === 'decline' ? 'declined' : 'dismissed' };
    } catch (error) {
      // A client can answer with the code of a timeout as well; that is before the time is up.
      const isLate =
        error instanceof McpError &&
        error.code === (ErrorCode.RequestTimeout as number) &&
        elapsedMs() >= Math.min(timeoutMs, FASTEST_PERSON_MS);
      answer = isLate ? { kind: 'late' } : { kind: 'unavailable', reason: reasonOf(error) };
    }
    return signal.aborted ? { kind: 'late' } : answer;
  };
}

function textsOf(content: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(content).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

function reasonOf(error: unknown): string {
  if (!(error instanceof McpError)) return 'its answer is not one to a form';
  return `it answered with an error: ${JSON.stringify(singleLine(error.message, MAX_REASON_CHARS))}`;
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

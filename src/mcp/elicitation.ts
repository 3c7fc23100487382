import type { ElicitRequestFormParams } from '@modelcontextprotocol/sdk/types.js';

import type { Form, PersonAnswer } from '../operations/runtime.ts';
import { isObject } from './wire.ts';

/**
 * Nobody reads a form and answers it in less. Clients that answer by themselves (Claude Code headless, Codex that asks for
 * nothing, VS Code) do so within milliseconds.
 */
const FASTEST_PERSON_MS = 500;

/** Whether a client that declares `elicitation` shows forms. Before 2025-11-25 an empty object meant that it does. */
export function showsForms(elicitation: unknown): boolean {
  return isObject(elicitation) && (isObject(elicitation['form']) || elicitation['url'] === undefined);
}

/** What a client's result of `elicitation/create` says, `afterMs` after the form came to it. */
export function personAnswer(result: unknown, afterMs: number): PersonAnswer {
  if (afterMs < FASTEST_PERSON_MS)
    return { kind: 'unavailable', reason: `it answered within ${FASTEST_PERSON_MS} ms, as no person does` };
  const { action, content = {} } = isObject(result) ? result : {};
  if (action === 'decline') return { kind: 'declined' };
  if (action === 'cancel') return { kind: 'dismissed' };
  if (action !== 'accept' || !isObject(content))
    return { kind: 'unavailable', reason: 'its answer does not fit a form' };
  const texts = Object.entries(content).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
  return { kind: 'accepted', fields: Object.fromEntries(texts) };
}

/** The parameters of `elicitation/create`. */
export function formParams({ message, fields, required }: Form): ElicitRequestFormParams {
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

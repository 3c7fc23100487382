import type { ElicitRequestFormParams } from '@modelcontextprotocol/sdk/types.js';

import type { Form, PersonAnswer } from '../operations/runtime.ts';
import { isObject } from './wire.ts';

/** No person answers a form faster. Clients that answer by themselves (headless Claude Code, Codex, VS Code) take milliseconds. */
const FASTEST_PERSON_MS = 500;

/** Whether a client that declares this capability shows forms. Before 2025-11-25 an empty object meant that. */
export function showsForms(elicitation: unknown): boolean {
  return isObject(elicitation) && (isObject(elicitation['form']) || elicitation['url'] === undefined);
}

/** Reads a client's result of `elicitation/create`, which came `afterMs` after the form. */
export function personAnswer(result: unknown, afterMs: number): PersonAnswer {
  if (afterMs < FASTEST_PERSON_MS)
    return { kind: 'unavailable', reason: `it answered within ${FASTEST_PERSON_MS} ms, faster than a person can` };
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

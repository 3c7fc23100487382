import type { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { ElicitResultSchema, McpError } from '@modelcontextprotocol/sdk/types.js';

import type { Clock } from '../../base/clock.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { AskPerson, PersonAnswer } from '../../operations/runtime.ts';
import { formParams, personAnswer, showsForms } from '../elicitation.ts';

const MAX_REASON_CHARS = 200;
/** Node's longest timer; a longer one fires at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Asks the person by elicitation, once the client has initialized; undefined if the client cannot. Clients remove the form when the signal aborts. */
export function personAsker(server: Server, clock: Clock): AskPerson | undefined {
  if (!showsForms(server.getClientCapabilities()?.elicitation)) return undefined;
  let isFirst = true;
  return async (question, { timeoutMs, signal }) => {
    // Our first request has the id 0, which clients of the SDK (1.32) cannot cancel: it must not be a form.
    if (isFirst) server.ping().catch(() => {});
    isFirst = false;
    const askedMs = clock.monotonic();
    const over = new LinkedAbort(signal);
    // Not the SDK's time limit: a client can answer with the code of that error too.
    void clock.sleep(timeoutMs, over.signal).then(() => over.abort());
    let answer: PersonAnswer;
    try {
      // Not `elicitInput`: it needs a JSON schema validator of 120 KB, and the caller checks the answer anyway.
      const result = await server.request(
        { method: 'elicitation/create', params: formParams(question) },
        ElicitResultSchema,
        { timeout: LONGEST_TIMER_MS, signal: over.signal },
      );
      answer = personAnswer(result, clock.monotonic() - askedMs);
    } catch (error) {
      answer = { kind: 'unavailable', reason: reasonOf(error) };
    }
    const isLate = over.signal.aborted;
    over.end();
    return isLate ? { kind: 'late' } : answer;
  };
}

function reasonOf(error: unknown): string {
  if (!(error instanceof McpError)) return 'its answer does not fit a form';
  // Clients of the SDK append zod's issues as JSON.
  const [words = ''] = error.message.split(/:?\s*\[\s*\{/, 1);
  return `it answered with an error: ${JSON.stringify(singleLine(words, MAX_REASON_CHARS))}`;
}

import { randomUUID } from 'node:crypto';

import { messageOf } from '../../base/errors.ts';
import { LinkedAbort } from '../../base/linked-abort.ts';
import type { AskPerson, Form, PersonAnswer } from '../../operations/runtime.ts';
import { formParams, personAnswer } from '../elicitation.ts';
import type { Core, McpRequest } from '../core.ts';
import type { ToolCall } from '../tool-calls.ts';
import { invalidParams, isObject, type Params, textIn } from '../wire.ts';
import { type AskedState, digestOf, StateSealer } from './sealed-state.ts';

const UNSEALED: PersonAnswer = {
  kind: 'unavailable',
  reason: 'the key that seals their answers cannot be saved; the log of this server says why',
};

/** A person who answers later is asked again, or answers in that opencode. */
const HOLDS_MS = 3_600_000;

/**
 * Asks the person in a call that is not a task. The call ends with the question, and the client repeats it with the answer. The
 * tool then runs again, finds what it has sent by its request id, and takes the answer when it asks that very question again.
 */
export class Retries {
  readonly #core: Core;
  #sealer: Promise<StateSealer> | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  /** @throws {RpcError} `requestState` is not ours, belongs to another call, or is too old */
  async run(call: ToolCall, request: McpRequest, params: Params, canAsk: boolean): Promise<object> {
    const { tools, logger } = this.#core;
    const sealer = await this.#open().catch((error: unknown) => {
      const reason = messageOf(error);
      logger.log('warn', 'cannot ask the person: cannot save the key that seals their answers', { reason });
    });
    const state = params['requestState'] === undefined ? undefined : this.#stateOf(sealer, call, params);
    const requestId = state?.requestId ?? randomUUID();
    if (!canAsk) return await tools.run(call, request, { requestId });
    // Not undefined: with a client that cannot ask, the model may allow what otherwise only the person may.
    if (sealer === undefined) return await tools.run(call, { ...request, askPerson: async () => UNSEALED });
    const over = new LinkedAbort(request.signal);
    try {
      return await new Promise((resolve, reject) => {
        const askPerson = this.#asker({ sealer, call, requestId, state, responses: params['inputResponses'] }, resolve);
        tools.run(call, { ...request, signal: over.signal, askPerson }, { requestId }).then(resolve, reject);
      });
    } finally {
      over.end();
    }
  }

  #open(): Promise<StateSealer> {
    this.#sealer ??= StateSealer.open(this.#core.stateDir);
    this.#sealer.catch(() => (this.#sealer = undefined));
    return this.#sealer;
  }

  #stateOf(sealer: StateSealer | void, call: ToolCall, params: Params): AskedState {
    const state = sealer?.open(textIn(params, 'requestState'));
    if (state === undefined || state.call !== callOf(call))
      throw invalidParams('requestState does not belong to this call; nothing was done. Call again without it.');
    const age = this.#core.clock.now() - state.askedAtMs;
    if (age < 0 || age > HOLDS_MS)
      throw invalidParams('requestState is too old; nothing was done. Call again without it.');
    return state;
  }

  #asker({ sealer, call, requestId, state, responses }: Asking, end: (result: object) => void): AskPerson {
    const { clock } = this.#core;
    let isTaken = false;
    return async (form, { signal }) => {
      const question = questionOf(form);
      const response = isObject(responses) ? responses[keyOf(question)] : undefined;
      if (!isTaken && state?.question === question && response !== undefined) {
        isTaken = true;
        return personAnswer(response, clock.now() - state.askedAtMs);
      }
      const asked = { call: callOf(call), question, askedAtMs: clock.now(), requestId };
      end({
        resultType: 'input_required',
        inputRequests: { [keyOf(question)]: { method: 'elicitation/create', params: formParams(form) } },
        requestState: sealer.seal(asked),
      });
      // That ended the call.
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      return { kind: 'late' };
    };
  }
}

interface Asking {
  readonly sealer: StateSealer;
  readonly call: ToolCall;
  readonly requestId: string;
  readonly state: AskedState | undefined;
  readonly responses: unknown;
}

function callOf({ tool, args }: ToolCall): string {
  return digestOf([tool.name, args]);
}

function questionOf({ id, message, fields }: Form): string {
  return digestOf([id, message, fields]);
}

function keyOf(question: string): string {
  return `q-${question.slice(0, 12)}`;
}

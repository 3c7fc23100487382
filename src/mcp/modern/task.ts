import { randomUUID } from 'node:crypto';

import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';

import { LinkedAbort } from '../../base/linked-abort.ts';
import { formatAge, quoteName } from '../../operations/answer.ts';
import type { AskPerson, Form, PersonAnswer } from '../../operations/runtime.ts';
import { formParams, personAnswer } from '../elicitation.ts';
import type { Core, McpRequest } from '../core.ts';
import type { CallExtras, ToolCall } from '../tool-calls.ts';
import { isObject, type Params } from '../wire.ts';
import type { KeptTask } from './task-store.ts';

/** Often enough for a person who watches the status; a poll costs almost nothing. */
const POLL_MS = 1_000;
/** Instances named in one line of status. */
const MAX_NAMED = 3;

/** A question to the person, until it is answered here or elsewhere. */
interface OpenQuestion {
  readonly form: Form;
  /** When the client first got it, on the monotonic clock. */
  shownAtMs?: number;
  readonly resolve: (answer: PersonAnswer) => void;
}

export interface TaskRun extends Pick<CallExtras, 'work'> {
  readonly client: McpRequest['client'];
  readonly canAsk: boolean;
  /** Signal of the request that starts the task: the client may cancel it before it knows the task. */
  readonly until?: AbortSignal;
}

/** One call in the background, as its client sees it. */
export class Task {
  readonly #core: Core;
  readonly #id: string;
  #kept: KeptTask;
  /** Resolves to the task as stored: another process may have ended it. */
  readonly #save: (kept: KeptTask) => Promise<KeptTask>;
  readonly #questions = new Map<string, OpenQuestion>();
  readonly #doing = new Map<string, string>();
  #ending: LinkedAbort | undefined;
  #isLeft = false;
  #ended: Promise<void> | undefined;

  constructor(core: Core, id: string, kept: KeptTask, save: (kept: KeptTask) => Promise<KeptTask>) {
    this.#core = core;
    this.#id = id;
    this.#kept = kept;
    this.#save = save;
  }

  get isOver(): boolean {
    return this.#kept.end !== undefined;
  }

  /** Resolves when the call has ended and its end is stored; rejects if the end cannot be stored. */
  async run(call: ToolCall, { client, canAsk, until, work }: TaskRun): Promise<void> {
    const { clock, tools } = this.#core;
    const ending = new LinkedAbort(until);
    this.#ending = ending;
    const { createdAtMs, ttlMs } = this.#kept;
    const request: McpRequest = {
      signal: ending.signal,
      deadlineMs: clock.monotonic() + createdAtMs + ttlMs - clock.now(),
      client,
      askPerson: canAsk ? this.#askPerson : undefined,
    };
    const result = await tools.run(call, request, {
      work,
      asksAtOnce: true,
      onActivity: (instance, doing) => void this.#doing.set(instance, doing),
      onBegun: async (begun) => {
        if (this.#ended !== undefined) throw new Error('the task was cancelled');
        const others = this.#kept.begun.filter(({ instance }) => instance !== begun.instance);
        this.#change({ begun: [...others, begun] });
        const { end } = await this.#save(this.#kept);
        if (end !== undefined) throw new Error('another server has ended the task; nothing was sent by this one');
      },
    });
    ending.end();
    if (!this.#isLeft) await this.#end(this.#endOf(result));
  }

  #endOf(result: CallToolResult): KeptTask['end'] {
    const { outcome } = isObject(result.structuredContent) ? result.structuredContent : {};
    const message = result.isError === true ? `${this.#kept.tool} failed` : `${this.#kept.tool}: ${String(outcome)}`;
    return { status: 'completed', message, result: { ...result, resultType: 'complete' } };
  }

  /** Stops following. The agent works on. */
  async cancel(): Promise<void> {
    if (this.isOver) return;
    const names = this.#kept.begun.map(({ instance }) => quoteName(instance)).join(', ');
    const message =
      names !== ''
        ? `No longer followed. ${names} may still work on it: send with abort: true stops that.`
        : this.#kept.tool === 'wait'
          ? 'No longer waited for. The agents work on.'
          : 'Cancelled before anything was sent.';
    const ended = this.#end({ status: 'cancelled', message });
    this.#ending?.abort();
    // If the end cannot be stored, `run` reports it. The task is cancelled anyway.
    await ended.catch(() => {});
  }

  /** Stops following because this process ends. The task stays open for the next process. */
  leave(): void {
    this.#isLeft = true;
    this.#ending?.abort();
  }

  /** Ignores answers that belong to no open question. */
  answer(responses: Params): void {
    for (const [key, response] of Object.entries(responses)) {
      const question = this.#questions.get(key);
      if (question === undefined) continue;
      const nowMs = this.#core.clock.monotonic();
      question.resolve(personAnswer(response, nowMs - (question.shownAtMs ?? nowMs)));
    }
  }

  /** The task without questions and result. */
  view(): object {
    const { createdAtMs, updatedAtMs, ttlMs, end } = this.#kept;
    return {
      taskId: this.#id,
      status: end?.status ?? (this.#questions.size > 0 ? 'input_required' : 'working'),
      statusMessage: end?.message ?? this.#statusMessage(),
      createdAt: new Date(createdAtMs).toISOString(),
      lastUpdatedAt: new Date(updatedAtMs).toISOString(),
      ttlMs,
      pollIntervalMs: POLL_MS,
    };
  }

  /** The task with its open questions, or its result. */
  detail(): object {
    const { end } = this.#kept;
    if (end !== undefined) return { ...this.view(), ...(end.result !== undefined && { result: end.result }) };
    if (this.#questions.size === 0) return this.view();
    const asked = [...this.#questions].map(([key, question]) => {
      question.shownAtMs ??= this.#core.clock.monotonic();
      return [key, { method: 'elicitation/create', params: formParams(question.form) }] as const;
    });
    return { ...this.view(), inputRequests: Object.fromEntries(asked) };
  }

  readonly #askPerson: AskPerson = async (form, { signal }) => {
    // Keys must be unique across processes too.
    const key = `q-${randomUUID()}`;
    const answer = new Promise<PersonAnswer>((resolve) => {
      this.#questions.set(key, { form, resolve });
      const late = (): void => resolve({ kind: 'late' });
      if (signal.aborted) late();
      else signal.addEventListener('abort', late, { once: true });
    });
    this.#change({});
    try {
      return await answer;
    } finally {
      this.#questions.delete(key);
      this.#change({});
    }
  };

  /** Shows the end only once it is stored, so that the next process shows the same. If there are several, the first counts. */
  async #end(end: KeptTask['end']): Promise<void> {
    const kept = { ...this.#kept, end, updatedAtMs: this.#core.clock.now() };
    this.#ended ??= this.#save(kept).then(
      (first) => void (this.#kept = first),
      (error: unknown) => {
        this.#kept = kept;
        throw error;
      },
    );
    await this.#ended;
  }

  #change(change: Partial<KeptTask>): void {
    this.#kept = { ...this.#kept, ...change, updatedAtMs: this.#core.clock.now() };
  }

  /** `desk-api: runs bash «npm test», 3 min`. */
  #statusMessage(): string {
    const age = formatAge(this.#core.clock.now() - this.#kept.createdAtMs);
    const asked = [...this.#questions.values()].map(({ form }) => form.about);
    if (asked.length > 0) return `waits for you: ${asked.join('; ')}, ${age}`;
    const doing = [...this.#doing].map(([instance, what]) => `${quoteName(instance)}: ${what}`);
    if (doing.length === 0) return `${this.#kept.tool}: under way, ${age}`;
    const more = doing.length > MAX_NAMED ? [`${doing.length - MAX_NAMED} more`] : [];
    return `${[...doing.slice(0, MAX_NAMED), ...more].join('; ')}, ${age}`;
  }
}

import type { IncomingMessage, ServerResponse } from 'node:http';
import { text as readText } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';

import { failWith, replySink, textOf, type ChatRequest, type ReplySink } from './chat-completions.ts';
import { Gates } from '../gates.ts';
import { listenHttp } from '../http-listener.ts';
import { CONTINUE, HANG_GATE, HANG_REPLY, parseScript, toolReply, type Step } from './model-script.ts';
import { until } from '../wait.ts';

/** The provider and the models that the rig's opencode.json names. */
export const PROVIDER_ID = 'scripted';
export const MODEL_ID = 'scripted-model';
export const SMALL_MODEL_ID = 'scripted-small';

/** The model's context in tokens; opencode compacts at some 20,000 less. */
export const CONTEXT_TOKENS = 100_000;

/** An error text of real providers, which opencode recognises. */
const TOO_LONG = `This model's maximum context length is ${CONTEXT_TOKENS} tokens.`;

/** The answer to every request for the summary of a compaction. */
export const SCRIPTED_SUMMARY = 'Scripted summary of what was said';

/** The answer to every request for a session title. */
export const SCRIPTED_TITLE = 'Scripted session';

export interface ModelRequest {
  /** `title`: opencode asks its small model for a session's title, at any time. `summary`: opencode compacts the session. */
  readonly kind: 'turn' | 'title' | 'summary';
  /** The last user message without opencode's own reminders. Two text parts are joined by a newline. */
  readonly text: string;
  /** Tool results since that message: 0 for the request that begins a turn, or repeats its beginning after an error. */
  readonly step: number;
  /** The newest tool result as the model sees it, in a request with `step` above 0. */
  readonly toolResult?: string;
  /** The session that sent the request; each sub-agent has its own. */
  readonly sessionID: string | undefined;
  /** Arrival of the request, in ms since the epoch. */
  readonly atMs: number;
  readonly model: string;
  /** Every user message of the conversation so far, oldest first. */
  readonly userTexts: readonly string[];
  /** True once opencode has closed the connection before the reply was complete. */
  readonly aborted: boolean;
}

export interface ScriptedModel extends AsyncDisposable {
  /** Base URL for `@ai-sdk/openai-compatible`, `/v1` included. */
  readonly url: string;
  readonly requests: readonly ModelRequest[];
  /** The number of turns begun with exactly this text; titles and requests after a tool result do not count. */
  turns(text: string): number;
  /** Resolves with the first past or future request that begins a turn with this text. */
  waitForTurn(text: string): Promise<ModelRequest>;
  /** Opens a gate for good. */
  release(gate: string): void;
  /** Resolves once a request waits at the gate; for `gate-mid`, its first half has been sent. */
  waitForGate(gate: string, timeoutMs?: number): Promise<void>;
  close(): Promise<void>;
}

/** A model that follows the script in the last user message: see `model-script.ts`. `scriptOf` maps a message written for people to a script. */
export async function startScriptedModel(scriptOf = (text: string): string => text): Promise<ScriptedModel> {
  const requests: Array<ModelRequest & { aborted: boolean }> = [];
  const gates = new Gates();
  const failures = new Map<string, number>();
  /** The number of further requests that use more tokens than the context has, by session. */
  const overflows = new Map<string, number>();
  const turnsWithText = (text: string): ModelRequest[] =>
    requests.filter((request) => request.kind === 'turn' && request.step === 0 && request.text === text);

  const listener = await listenHttp((request, response) => {
    handle(request, response).catch((error: unknown) =>
      response.destroy(error instanceof Error ? error : new Error(String(error))),
    );
  });

  async function handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    if (incoming.method !== 'POST' || incoming.url !== '/v1/chat/completions') return void failWith(response, 404);
    const closed = new AbortController();
    const body: ChatRequest = JSON.parse(await readText(incoming));
    const recorded = { ...describeRequest(body, incoming), aborted: false };
    response.once('close', () => {
      recorded.aborted = !response.writableFinished;
      closed.abort();
    });
    requests.push(recorded);

    const sink = replySink(body, response);
    const step = parseScript(scriptOf(recorded.text));
    const isUnfinished =
      recorded.kind === 'turn' ? perform(step, recorded, response, sink, closed.signal) : answerOpencode();
    if (!(await isUnfinished) || closed.signal.aborted) return;
    sink.end(step.kind === 'ends' ? step.finish : undefined, overflowsNow(recorded, step) ? CONTEXT_TOKENS : undefined);

    /** Answers opencode's requests for titles and summaries. Returns false if the whole response has been sent. */
    async function answerOpencode(): Promise<boolean> {
      if (recorded.kind === 'title') sink.text(SCRIPTED_TITLE);
      else {
        const conversation = recorded.userTexts.join('\n');
        if (conversation.includes('summary-too')) return failWith(response, 400, { message: TOO_LONG });
        if (conversation.includes('hang-summary')) await gates.pass(HANG_GATE, closed.signal);
        sink.text(SCRIPTED_SUMMARY);
      }
      return true;
    }
  }

  /** Runs a step of the script. Returns false if the whole response has been sent. */
  async function perform(
    step: Step,
    request: ModelRequest,
    response: ServerResponse,
    sink: ReplySink,
    closed: AbortSignal,
  ): Promise<boolean> {
    switch (step.kind) {
      case 'text':
        for (const chunk of step.chunks) {
          sink.text(chunk);
          if (step.everyMs > 0) await delay(step.everyMs, undefined, { signal: closed }).catch(() => {});
          if (closed.aborted) break;
        }
        return true;
      case 'reasoning':
        sink.reasoning(step.thinking);
        for (const chunk of step.chunks) sink.text(chunk);
        return true;
      case 'gate':
        sink.start();
        if (step.before !== '') sink.text(step.before);
        await gates.pass(step.name, closed);
        if (!closed.aborted) sink.text(step.after);
        return true;
      case 'hang':
        await gates.pass(step.name, closed);
        if (!closed.aborted) sink.text(HANG_REPLY);
        return true;
      case 'ends':
        sink.text(step.text);
        return true;
      case 'plan': {
        const next = step.calls[request.step];
        if (next) sink.toolCall(next.tool, next.input);
        else sink.text(toolReply(step.calls.at(-1)?.tool ?? '', request.toolResult ?? ''));
        return true;
      }
      case 'fail':
        if (failsNow(step, request.text)) {
          // Real backoff begins at 2 s; a script that succeeds in the end should not take that long.
          return failWith(response, step.status, step.times === undefined ? {} : { retryAfterMs: 50 });
        }
        sink.text(step.afterwards ?? '');
        return true;
      case 'too-long':
        if (failsNow(step, request.text)) return failWith(response, 400, { message: TOO_LONG });
        return perform(step.inner, request, response, sink, closed);
      case 'overflow':
        return perform(step.inner, request, response, sink, closed);
    }
  }

  function failsNow({ times }: { readonly times?: number }, text: string): boolean {
    if (times === undefined) return true;
    const count = (failures.get(text) ?? 0) + 1;
    failures.set(text, count);
    return count <= times;
  }

  /** Whether this reply leaves no room in the context. opencode's own prompt after a compaction continues the previous script. */
  function overflowsNow({ kind, sessionID = '', text, step: results }: ModelRequest, step: Step): boolean {
    if (kind !== 'turn') return false;
    if (step.kind === 'overflow' && results === 0) overflows.set(sessionID, step.times);
    else if (step.kind !== 'overflow' && !text.includes(CONTINUE)) return false;
    const left = overflows.get(sessionID) ?? 0;
    overflows.set(sessionID, left - 1);
    return left > 0;
  }

  return {
    url: `${listener.url}/v1`,
    requests,
    turns: (text) => turnsWithText(text).length,
    waitForTurn(text) {
      const received = (): string =>
        JSON.stringify(requests.map(({ kind, text: got, step }) => `${kind} ${step}: ${got}`));
      return until(
        () => `a turn of ${JSON.stringify(text)}; the model saw ${received()}`,
        () => turnsWithText(text)[0],
      );
    },
    release: (gate) => gates.open(gate),
    waitForGate: (gate, timeoutMs) => gates.reached(gate, timeoutMs),
    close: () => listener.close(),
    [Symbol.asyncDispose]: () => listener.close(),
  };
}

function describeRequest(body: ChatRequest, incoming: IncomingMessage): Omit<ModelRequest, 'aborted'> {
  const last = body.messages.findLastIndex((message) => message.role === 'user');
  const results = body.messages.slice(last + 1).filter((message) => message.role === 'tool');
  const newest = results.at(-1);
  const userTexts = body.messages
    .filter((message) => message.role === 'user')
    .map((message) => withoutReminders(textOf(message)));
  const sessionID = incoming.headers['x-session-id'];
  return {
    kind: isTitle(body) ? 'title' : isSummary(body) ? 'summary' : 'turn',
    text: userTexts.at(-1) ?? '',
    step: results.length,
    ...(newest ? { toolResult: textOf(newest) } : {}),
    sessionID: typeof sessionID === 'string' ? sessionID : undefined,
    atMs: Date.now(),
    model: body.model,
    userTexts,
  };
}

function isSummary({ messages }: ChatRequest): boolean {
  return messages.some(
    (message) => message.role === 'user' && /anchored summary|<previous-summary>/.test(textOf(message)),
  );
}

function isTitle(body: ChatRequest): boolean {
  const [first] = body.messages;
  return (
    body.model === SMALL_MODEL_ID || (first?.role === 'system' && textOf(first).startsWith('You are a title generator'))
  );
}

/**
 * The script without the reminders that plan mode adds. A prompt that arrives while a turn runs is one more user message, unchanged
 * (1.18.10 and 1.18.33).
 */
function withoutReminders(text: string): string {
  return text.replace(/<system-reminder>[^]*?<\/system-reminder>/g, '').trim();
}

import type { ServerResponse } from 'node:http';

/** The part of OpenAI's chat completions that opencode's openai-compatible provider uses. */

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content?: string | ReadonlyArray<{ readonly type: string; readonly text?: string }> | null;
}

export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
}

/** Sends a reply as server-sent events. */
export interface ReplySink {
  /** Sends the head of the response now; otherwise it goes with the first piece. */
  start(): void;
  text(piece: string): void;
  reasoning(piece: string): void;
  toolCall(name: string, input: Readonly<Record<string, unknown>>): void;
  /** Ends the reply with a finish reason (default: `stop`, or `tool_calls` after a call) and the token count of the prompt. */
  end(finish?: string, promptTokens?: number): void;
}

let lastId = 0;

export function textOf(message: ChatMessage): string {
  if (typeof message.content === 'string') return message.content;
  return (message.content ?? []).map((part) => part.text ?? '').join('\n');
}

/** Sends an error in OpenAI's form. `retryAfterMs` sets opencode's delay before the next attempt. Returns false: no reply follows. */
export function failWith(
  response: ServerResponse,
  status: number,
  { retryAfterMs, message = `scripted failure ${status}` }: { retryAfterMs?: number; message?: string } = {},
): false {
  response.writeHead(status, {
    'content-type': 'application/json',
    ...(retryAfterMs === undefined ? {} : { 'retry-after-ms': String(retryAfterMs) }),
  });
  response.end(JSON.stringify({ error: { message, type: 'scripted_error', code: String(status) } }));
  return false;
}

/** Streams the reply: opencode (1.18.10, 1.18.33 and the preview) requests only streamed ones. */
export function replySink({ model }: ChatRequest, response: ServerResponse): ReplySink {
  const id = `chatcmpl-${++lastId}`;
  let pieces = 0;
  let finish = 'stop';
  const chunk = (fields: Readonly<Record<string, unknown>>): void => {
    const body = { id, object: 'chat.completion.chunk', created: Math.floor(Date.now() / 1000), model, ...fields };
    response.write(`data: ${JSON.stringify(body)}\n\n`);
  };
  const start = (): void => {
    if (response.headersSent) return;
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    chunk({ choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }] });
  };
  const delta = (fields: Readonly<Record<string, unknown>>): void => {
    start();
    pieces += 1;
    chunk({ choices: [{ index: 0, delta: fields, finish_reason: null }] });
  };
  return {
    start,
    text: (content) => delta({ content }),
    reasoning: (content) => delta({ reasoning_content: content }),
    toolCall(name, input) {
      finish = 'tool_calls';
      delta({
        tool_calls: [
          {
            index: 0,
            id: `call_${id}_${pieces}`,
            type: 'function',
            function: { name, arguments: JSON.stringify(input) },
          },
        ],
      });
    },
    end(reason = finish, promptTokens = 10) {
      start();
      chunk({ choices: [{ index: 0, delta: {}, finish_reason: reason }] });
      const usage = { prompt_tokens: promptTokens, completion_tokens: pieces, total_tokens: promptTokens + pieces };
      chunk({ choices: [], usage });
      response.end('data: [DONE]\n\n');
    },
  };
}

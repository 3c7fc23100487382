import type { ServerResponse } from 'node:http';

/** The part of OpenAI's chat completions wire format that opencode's openai-compatible provider reads and writes. */

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content?: string | ReadonlyArray<{ readonly type: string; readonly text?: string }> | null;
}

export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly stream?: boolean;
}

/** Where a reply goes: as server-sent events or as one JSON body, so that the script need not know which. */
export interface ReplySink {
  /** Sends the head of the response now; otherwise it goes with the first piece. */
  start(): void;
  text(piece: string): void;
  reasoning(piece: string): void;
  toolCall(name: string, input: Readonly<Record<string, unknown>>): void;
  /** Why the reply ends (`stop`, or `tool_calls` where it called one), and how many tokens went into it. */
  end(finish?: string, promptTokens?: number): void;
}

let lastId = 0;

export function textOf(message: ChatMessage): string {
  if (typeof message.content === 'string') return message.content;
  return (message.content ?? []).map((part) => part.text ?? '').join('\n');
}

export function replySink(request: ChatRequest, response: ServerResponse): ReplySink {
  return request.stream === true ? streamed(request.model, response) : whole(request.model, response);
}

/** An error as OpenAI words it. A `retry-after-ms` header, where given, sets opencode's delay before the next attempt. */
export function failWith(
  response: ServerResponse,
  status: number,
  { retryAfterMs, message = `scripted failure ${status}` }: { retryAfterMs?: number; message?: string } = {},
): void {
  response.writeHead(status, {
    'content-type': 'application/json',
    ...(retryAfterMs === undefined ? {} : { 'retry-after-ms': String(retryAfterMs) }),
  });
  response.end(JSON.stringify({ error: { message, type: 'scripted_error', code: String(status) } }));
}

function streamed(model: string, response: ServerResponse): ReplySink {
  const id = `chatcmpl-${++lastId}`;
  let pieces = 0;
  let finish = 'stop';
  const chunk = (fields: Readonly<Record<string, unknown>>): void => {
    const body = { id, object: 'chat.completion.chunk', created: seconds(), model, ...fields };
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
            id: `call_${lastId}_${pieces}`,
            type: 'function',
            function: { name, arguments: JSON.stringify(input) },
          },
        ],
      });
    },
    end(why = finish, promptTokens?: number) {
      start();
      chunk({ choices: [{ index: 0, delta: {}, finish_reason: why }] });
      chunk({ choices: [], usage: usage(pieces, promptTokens) });
      response.end('data: [DONE]\n\n');
    },
  };
}

function whole(model: string, response: ServerResponse): ReplySink {
  let content = '';
  let thinking = '';
  const calls: unknown[] = [];
  return {
    start() {},
    text: (piece) => void (content += piece),
    reasoning: (piece) => void (thinking += piece),
    toolCall(name, input) {
      calls.push({ id: `call_${++lastId}`, type: 'function', function: { name, arguments: JSON.stringify(input) } });
    },
    end(why = calls.length === 0 ? 'stop' : 'tool_calls', promptTokens?: number) {
      const message = {
        role: 'assistant',
        content,
        ...(thinking === '' ? {} : { reasoning_content: thinking }),
        ...(calls.length === 0 ? {} : { tool_calls: calls }),
      };
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(
        JSON.stringify({
          id: `chatcmpl-${++lastId}`,
          object: 'chat.completion',
          created: seconds(),
          model,
          choices: [{ index: 0, message, finish_reason: why }],
          usage: usage(1, promptTokens),
        }),
      );
    },
  };
}

function usage(completion: number, prompt = 10): Readonly<Record<string, number>> {
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
}

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}

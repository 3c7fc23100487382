import type { ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';

import { type HttpListener, listenHttp } from './http-listener.ts';

/** A request to the model: everything new since its last reply, and its tools. */
export interface ClaudeTurn {
  /** The new texts and tool results, joined. */
  readonly newest: string;
  /** The new content includes a tool result. */
  readonly isResult: boolean;
  /** Tool results in the whole conversation. */
  readonly results: number;
  readonly tools: readonly string[];
}

/** A text, or a tool call. */
export type ClaudeReply = string | { readonly tool: string; readonly input: object };

/** A model that Claude Code talks to (the streamed form of Anthropic's messages API), as scripted by `reply`. */
export interface ClaudeModel extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Without requests for titles and the like, which have no tools. */
  readonly turns: readonly ClaudeTurn[];
}

interface MessagesRequest {
  readonly messages?: readonly { readonly role: string; readonly content: unknown }[];
  readonly tools?: readonly { readonly name: string }[];
}

export async function startClaudeModel(reply: (turn: ClaudeTurn) => ClaudeReply): Promise<ClaudeModel> {
  const turns: ClaudeTurn[] = [];
  const listener: HttpListener = await listenHttp((request, response) => {
    if (request.method !== 'POST' || !/^\/v1\/messages(?:\?|$)/.test(request.url ?? '')) {
      request.resume();
      response.writeHead(404).end('{}');
      return;
    }
    void json(request).then((body) => {
      const { messages = [], tools = [] } = body as MessagesRequest;
      const said = messages.findLastIndex(({ role }) => role === 'assistant');
      const contents = messages.slice(said + 1).map(({ content }) => content);
      const isResult = JSON.stringify(contents).includes('"type":"tool_result"');
      const results = messages
        .flatMap(({ content }): readonly unknown[] => (Array.isArray(content) ? content : []))
        .filter((part) => (part as { readonly type?: string }).type === 'tool_result').length;
      const turn = { newest: textIn(contents), isResult, results, tools: tools.map(({ name }) => name) };
      if (turn.tools.length > 0) turns.push(turn);
      stream(response, turn.tools.length > 0 ? reply(turn) : 'A title');
    });
  });
  const { url, port } = listener;
  return { url, port, turns, [Symbol.asyncDispose]: () => listener.close() };
}

/** Every text in a message's content, tool results included. */
function textIn(content: unknown): string {
  if (typeof content === 'string') return content;
  if (Array.isArray(content)) return content.map(textIn).join('\n');
  if (typeof content !== 'object' || content === null) return '';
  if ('text' in content) return textIn(content.text);
  return 'content' in content ? textIn(content.content) : '';
}

let count = 0;

function stream(response: ServerResponse, reply: ClaudeReply): void {
  count += 1;
  const usage = { input_tokens: 10, output_tokens: 10 };
  const head = {
    id: `msg_${count}`,
    type: 'message',
    role: 'assistant',
    model: 'scripted',
    content: [],
    stop_reason: null,
  };
  const isText = typeof reply === 'string';
  const block = isText
    ? { type: 'text', text: '' }
    : { type: 'tool_use', id: `toolu_${count}`, name: reply.tool, input: {} };
  const delta = isText
    ? { type: 'text_delta', text: reply }
    : { type: 'input_json_delta', partial_json: JSON.stringify(reply.input) };
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (const event of [
    { type: 'message_start', message: { ...head, stop_sequence: null, usage } },
    { type: 'content_block_start', index: 0, content_block: block },
    { type: 'content_block_delta', index: 0, delta },
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: isText ? 'end_turn' : 'tool_use', stop_sequence: null }, usage },
    { type: 'message_stop' },
  ])
    response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  response.end();
}

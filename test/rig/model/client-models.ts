import type { IncomingMessage, ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';

import { listenHttp } from '../http-listener.ts';

/** The only tool call of a model, which then repeats the tool's result as its answer. */
export interface ScriptedTool {
  /** Without the client's prefix. */
  readonly name: string;
  readonly input: object;
}

export interface ClientModel extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
}

interface ResponsesRequest {
  readonly input: readonly { readonly type: string; readonly output?: unknown }[];
  readonly tools?: readonly { readonly type: string; readonly name?: string }[];
}

/** A model for Codex (the streamed Responses API), which groups MCP tools in a namespace per server. */
export function startCodexModel({ name, input: args }: ScriptedTool): Promise<ClientModel> {
  return startModel(/^\/v1\/responses$/, async (request, response) => {
    const { input, tools } = (await json(request)) as ResponsesRequest;
    const output = input.findLast(({ type }) => type === 'function_call_output')?.output;
    const namespace = tools?.find((tool) => tool.type === 'namespace' && tool.name?.startsWith('mcp__'))?.name;
    const item =
      output === undefined
        ? { type: 'function_call', id: 'fc_1', call_id: 'call_1', name, namespace, arguments: JSON.stringify(args) }
        : {
            type: 'message',
            role: 'assistant',
            id: 'msg_1',
            content: [{ type: 'output_text', text: JSON.stringify(output), annotations: [] }],
          };
    const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 };
    const events = [
      { type: 'response.created', response: { id: 'resp_1' } },
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response: { id: 'resp_1', usage } },
    ];
    sendEvents(response, events);
  });
}

interface GenerateRequest {
  readonly contents: readonly { readonly parts?: readonly { readonly functionResponse?: { response: unknown } }[] }[];
  readonly tools?: readonly { readonly functionDeclarations?: readonly { readonly name: string }[] }[];
}

/** A model for Gemini CLI (`streamGenerateContent` of the Gemini API), which prefixes MCP tools with their server's name. */
export function startGeminiModel({ name, input: args }: ScriptedTool): Promise<ClientModel> {
  return startModel(/GenerateContent\b/i, async (request, response) => {
    const { contents, tools } = (await json(request)) as GenerateRequest;
    const output = contents.flatMap(({ parts = [] }) => parts).findLast((part) => part.functionResponse !== undefined);
    const tool = tools
      ?.flatMap(({ functionDeclarations = [] }) => functionDeclarations)
      .find((one) => one.name === `mcp_opencode_${name}`);
    const part =
      output === undefined && tool !== undefined
        ? { functionCall: { name: tool.name, args } }
        : { text: JSON.stringify(output?.functionResponse?.response ?? {}) };
    const answer = {
      candidates: [{ content: { role: 'model', parts: [part] }, finishReason: 'STOP', index: 0 }],
      usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 },
    };
    const isStream = request.url?.includes('stream') === true;
    response.writeHead(200, { 'content-type': isStream ? 'text/event-stream' : 'application/json' });
    response.end(isStream ? `data: ${JSON.stringify(answer)}\n\n` : JSON.stringify(answer));
  });
}

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

export interface ClaudeModel extends ClientModel {
  /** Without requests for titles and the like, which have no tools. */
  readonly turns: readonly ClaudeTurn[];
}

interface MessagesRequest {
  readonly messages?: readonly { readonly role: string; readonly content: unknown }[];
  readonly tools?: readonly { readonly name: string }[];
}

/** A model for Claude Code (the streamed form of Anthropic's messages API), scripted by `reply`. */
export async function startClaudeModel(reply: (turn: ClaudeTurn) => ClaudeReply): Promise<ClaudeModel> {
  const turns: ClaudeTurn[] = [];
  const model = await startModel(/^\/v1\/messages(?:\?|$)/, async (request, response) => {
    const { messages = [], tools = [] } = (await json(request)) as MessagesRequest;
    const answered = messages.findLastIndex(({ role }) => role === 'assistant');
    const contents = messages.slice(answered + 1).map(({ content }) => content);
    const results = messages
      .flatMap(({ content }): readonly unknown[] => (Array.isArray(content) ? content : []))
      .filter((part) => (part as { readonly type?: string }).type === 'tool_result').length;
    const turn = {
      newest: textIn(contents),
      isResult: JSON.stringify(contents).includes('"type":"tool_result"'),
      results,
      tools: tools.map(({ name }) => name),
    };
    if (turn.tools.length > 0) turns.push(turn);
    sendReply(response, turn.tools.length > 0 ? reply(turn) : 'A title');
  });
  return { ...model, turns };
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

function sendReply(response: ServerResponse, reply: ClaudeReply): void {
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
  sendEvents(response, [
    { type: 'message_start', message: { ...head, stop_sequence: null, usage } },
    { type: 'content_block_start', index: 0, content_block: block },
    { type: 'content_block_delta', index: 0, delta },
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: isText ? 'end_turn' : 'tool_use', stop_sequence: null }, usage },
    { type: 'message_stop' },
  ]);
}

async function startModel(
  path: RegExp,
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<ClientModel> {
  const listener = await listenHttp((request, response) => {
    if (request.method === 'POST' && path.test(request.url ?? '')) void answer(request, response);
    else {
      request.resume();
      response.writeHead(404).end('{}');
    }
  });
  const { url, port } = listener;
  return { url, port, [Symbol.asyncDispose]: () => listener.close() };
}

function sendEvents(
  response: ServerResponse,
  events: readonly (Readonly<Record<string, unknown>> & { readonly type: string })[],
): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.end(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''));
}

import type { IncomingMessage, ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';

import { type HttpListener, listenHttp } from './http-listener.ts';

/** The only tool call of a client's model, which repeats the tool's result as its answer. */
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
export function startCodexModel({ name, input }: ScriptedTool): Promise<ClientModel> {
  return startModel(/^\/v1\/responses$/, async (request, response) => {
    const asked = (await json(request)) as ResponsesRequest;
    const output = asked.input.findLast(({ type }) => type === 'function_call_output')?.output;
    const namespace = asked.tools?.find((tool) => tool.type === 'namespace' && tool.name?.startsWith('mcp__'))?.name;
    const item =
      output === undefined
        ? { type: 'function_call', id: 'fc_1', call_id: 'call_1', name, namespace, arguments: JSON.stringify(input) }
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
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''));
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

async function startModel(
  path: RegExp,
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<ClientModel> {
  const listener: HttpListener = await listenHttp((request, response) => {
    if (request.method === 'POST' && path.test(request.url ?? '')) void answer(request, response);
    else {
      request.resume();
      response.writeHead(404).end('{}');
    }
  });
  const { url, port } = listener;
  return { url, port, [Symbol.asyncDispose]: () => listener.close() };
}

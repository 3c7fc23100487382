import { text as readText } from 'node:stream/consumers';

import { listenHttp } from './http-listener.ts';

/** One call of a tool that the model makes. */
export type ScriptedCall = readonly [tool: string, input: Readonly<Record<string, unknown>>];

interface MessagesRequest {
  readonly model: string;
  readonly messages: readonly {
    readonly content: string | readonly { readonly type: string; readonly content?: unknown }[];
  }[];
}

/**
 * A model for Claude Code: the streamed part of Anthropic's messages API. It makes these calls one after the other, each after the
 * result of the one before, then says what the last one returned.
 */
export async function startScriptedMessages(
  calls: readonly ScriptedCall[],
): Promise<AsyncDisposable & { readonly url: string }> {
  return listenHttp((request, response) => {
    void readText(request).then((body) => {
      if (request.method !== 'POST' || request.url?.split('?')[0] !== '/v1/messages') {
        response.writeHead(404).end();
        return;
      }
      const { model, messages }: MessagesRequest = JSON.parse(body);
      const results = messages
        .flatMap(({ content }) => (typeof content === 'string' ? [] : content))
        .filter(({ type }) => type === 'tool_result');
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const event of reply(model, calls[results.length], results)) {
        response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
      }
      response.end();
    });
  });
}

function reply(
  model: string,
  call: ScriptedCall | undefined,
  results: readonly { readonly content?: unknown }[],
): readonly { readonly type: string }[] {
  const message = { id: `msg_${results.length}`, type: 'message', role: 'assistant', model, content: [] };
  const usage = { input_tokens: 1, output_tokens: 1 };
  const block =
    call === undefined
      ? { type: 'text', text: '' }
      : { type: 'tool_use', id: `toolu_${results.length}`, name: call[0], input: {} };
  const delta =
    call === undefined
      ? { type: 'text_delta', text: JSON.stringify(results.at(-1)?.content) }
      : { type: 'input_json_delta', partial_json: JSON.stringify(call[1]) };
  return [
    { type: 'message_start', message: { ...message, stop_reason: null, stop_sequence: null, usage } },
    { type: 'content_block_start', index: 0, content_block: block },
    { type: 'content_block_delta', index: 0, delta },
    { type: 'content_block_stop', index: 0 },
    {
      type: 'message_delta',
      delta: { stop_reason: call === undefined ? 'end_turn' : 'tool_use', stop_sequence: null },
      usage,
    },
    { type: 'message_stop' },
  ] as readonly { readonly type: string }[];
}

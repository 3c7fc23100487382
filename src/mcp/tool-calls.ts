import type { CallToolResult } from '@modelcontextprotocol/sdk/types.js';

import type { Logger } from '../base/log.ts';
import type { Answer } from '../operations/answer.ts';
import type { RecordEntry } from '../operations/call-record.ts';
import type { Call, Runtime } from '../operations/runtime.ts';
import type { McpRequest } from './core.ts';
import { ProgressReporter } from './progress.ts';
import type { Arguments } from './tools/arguments.ts';
import type { ListedTool } from './tools/listing.ts';
import type { Tool } from './tools/tool.ts';
import { toolError } from './tools/tool-error.ts';
import { invalidParams, objectIn, type Params, textIn } from './wire.ts';

export interface ToolCallDeps {
  readonly listed: readonly ListedTool[];
  readonly logger: Logger;
  readonly record: (entry: RecordEntry) => void;
  readonly runtime: () => Promise<Runtime>;
}

/** A tools/call that was read and has not run. */
export interface ToolCall {
  readonly tool: Tool;
  readonly args: Arguments;
  /** Why the arguments do not fit, for a model. */
  readonly problem?: string;
}

/** The options of a call that only tasks and retries use. */
export interface CallExtras extends Pick<Call, 'onActivity' | 'onBegun' | 'requestId' | 'asksAtOnce'> {
  /** Runs instead of the tool's own operation. */
  readonly work?: ((runtime: Runtime, call: Call) => Promise<Answer<unknown>>) | undefined;
}

export class ToolCalls {
  readonly #deps: ToolCallDeps;

  constructor(deps: ToolCallDeps) {
    this.#deps = deps;
  }

  /** @throws {RpcError} the tool is unknown, or the parameters do not fit tools/call */
  async read(params: Params): Promise<ToolCall> {
    const name = textIn(params, 'name');
    const given = params['arguments'] === undefined ? {} : objectIn(params, 'arguments');
    const listed = this.#deps.listed.find((one) => one.name === name);
    // Loaded at the first call: tools/list needs only the ready-made entries.
    const { TOOLS } = await import('./tools/tools.ts');
    const tool = listed && TOOLS.find((one) => one.name === name);
    if (tool === undefined) throw invalidParams(this.#unknownTool(name));
    const { describeBadInput, readArguments } = await import('./tools/arguments.ts');
    const args = readArguments(listed?.inputSchema.properties ?? {}, given);
    const input = tool.input.safeParse(args);
    return { tool, args, ...(!input.success && { problem: describeBadInput(name, tool.input, args, input.error) }) };
  }

  /** Never rejects: a failure is a result with `isError`. */
  async run(
    { tool, args, problem }: ToolCall,
    request: McpRequest,
    { work, ...extras }: CallExtras = {},
  ): Promise<CallToolResult> {
    const { signal, deadlineMs, notify, askPerson } = request;
    const reporter = notify === undefined ? undefined : new ProgressReporter(notify);
    const call: Call = {
      ...extras,
      signal,
      deadlineMs,
      onProgress: (fresh) => reporter?.add(fresh),
      ...(askPerson !== undefined && { askPerson }),
    };
    let data: unknown;
    try {
      if (problem !== undefined) return failure(problem);
      const runtime = await this.#deps.runtime();
      const answer = await (work === undefined
        ? (await tool.operation())(runtime, tool.input.parse(args) as never, call)
        : work(runtime, call));
      data = answer.data;
      return { content: [{ type: 'text', text: answer.text }], structuredContent: data as Record<string, unknown> };
    } catch (error) {
      return failure(toolError(tool.name, error, this.#deps.logger));
    } finally {
      reporter?.end();
      void import('./tools/recorded-call.ts').then(({ outcomeOf }) => {
        const outcome = outcomeOf(args, data, signal);
        if (outcome !== undefined) this.#deps.record({ client: request.client, tool: tool.name, ...outcome });
      });
    }
  }

  #unknownTool(name: string): string {
    const there = this.#deps.listed.map((tool) => tool.name).join(', ');
    return `Unknown tool ${JSON.stringify(name.slice(0, 100))}; there are: ${there}`;
  }
}

function failure(text: string): CallToolResult {
  return { isError: true, content: [{ type: 'text', text }] };
}

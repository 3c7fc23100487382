import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import {
  CallToolRequestSchema,
  type CallToolResult,
  ErrorCode,
  ListToolsRequestSchema,
  McpError,
} from '@modelcontextprotocol/sdk/types.js';

import type { RecordEntry } from '../operations/call-record.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { Call, Runtime } from '../operations/runtime.ts';
import { CleanStdio } from './clean-stdio.ts';
import { ClientLog } from './features/client-log.ts';
import { FleetNews } from './features/fleet-news.ts';
import { FEATURES, registerFeatures } from './features/features.ts';
import { instructions } from './instructions.ts';
import { callLimitMs } from './client-limits.ts';
import { personAsker } from './person.ts';
import { ProgressReporter } from './progress.ts';
import type { RecordedOutcome } from './tools/recorded-call.ts';
import { TASKS, Tasks } from './tasks.ts';
import { toolError } from './tools/tool-error.ts';
import type { ListedTool } from './tools/listing.ts';
import type { Arguments } from './tools/arguments.ts';
import type { Tool } from './tools/tool.ts';

export interface McpServerOptions {
  readonly version: string;
  /** What is offered, as it is listed. */
  readonly tools: readonly ListedTool[];
  readonly sendTimeoutMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Neither waits nor throws. */
  readonly record: (entry: RecordEntry) => void;
  /** Loads and starts what the tools work with; called once, when the first of them needs it or start-up is over. `logger` tells the client too. */
  readonly loadRuntime: (logger: Logger, onChange: () => void) => Promise<Runtime>;
}

/** A client that lists no tools gets discovery going after this. */
const START_DISCOVERY_AFTER_MS = 250;

/** A progress notification; resolves once the client has room for the next. */
type Notify = (progress: number, text: string | undefined) => Promise<void>;

type CallRun = Pick<Call, 'signal' | 'deadlineMs'>;

/** The connection is gone: whoever should have been told is too. */
const ignore = (): void => {};

/** The MCP side of the program: the SDK is used in this folder only. */
export class McpServer {
  readonly #options: McpServerOptions;
  readonly #server: Server;
  readonly #log = new ClientLog();
  readonly #news: FleetNews;
  readonly #tasks: Tasks;
  /** Not with `--read-only`: then the person is not asked either. */
  readonly #mayChange: boolean;
  #runtime: Promise<Runtime> | undefined;
  #startTimer: NodeJS.Timeout | undefined;

  constructor(options: McpServerOptions) {
    this.#options = options;
    const tools = options.tools.map(({ name }) => name);
    this.#mayChange = options.tools.some(({ annotations }) => annotations?.readOnlyHint === false);
    this.#tasks = new Tasks(options.clock);
    this.#server = new Server(
      { name: 'opencode-mcp', version: options.version },
      {
        capabilities: { tools: {}, tasks: TASKS, ...FEATURES },
        instructions: instructions(tools),
        taskStore: this.#tasks,
      },
    );
    this.#news = new FleetNews({
      listChanged: () => this.#server.sendResourceListChanged().catch(ignore),
      updated: (uri) => this.#server.sendResourceUpdated({ uri }).catch(ignore),
    });
    this.#serveTools();
    this.#serveFeatures(tools);
    this.#server.oninitialized = () => {
      // The same level filter for everyone is ours: the SDK's lets everything through until a level is set.
      this.#log.connect((message) =>
        this.#server.notification({ method: 'notifications/message', params: message }).catch(ignore),
      );
      this.#startTimer = setTimeout(() => this.#start(), START_DISCOVERY_AFTER_MS);
    };
    this.#server.onerror = (error) => {
      options.logger.log('warn', `MCP: ${error.message}`);
    };
  }

  #serveTools(): void {
    this.#server.setRequestHandler(ListToolsRequestSchema, () => {
      // Discovery begins when the list is out, not while a client waits for it.
      setImmediate(() => this.#start());
      return { tools: [...this.#options.tools] };
    });
    this.#server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
      const tool = await this.#tool(params.name);
      if (tool === undefined) throw new McpError(ErrorCode.InvalidParams, this.#unknownTool(params.name));
      const token = extra._meta?.progressToken;
      const notify =
        token === undefined
          ? undefined
          : (progress: number, text: string | undefined) =>
              extra
                .sendNotification({
                  method: 'notifications/progress',
                  params: { progressToken: token, progress, ...(text !== undefined && { message: text }) },
                })
                .catch(ignore);
      const args = params.arguments ?? {};
      if (params.task !== undefined && tool.taskSupport !== undefined) {
        return await this.#tasks.begin(extra, params.task.ttl, (run) => this.#call(tool, args, run, notify));
      }
      return await this.#call(tool, args, this.#run(extra.signal, notify !== undefined), notify);
    });
  }

  #serveFeatures(tools: readonly string[]): void {
    registerFeatures(this.#server, {
      tools,
      news: this.#news,
      log: this.#log,
      runtime: () => this.#loaded(),
      call: (signal) => ({ ...this.#run(signal, false), onProgress: ignore }),
      onInstance: async (method, { instance, session }, work) => {
        let outcome = 'failed';
        try {
          const result = await work();
          outcome = 'ok';
          return result;
        } catch (error) {
          throw new McpError(ErrorCode.InvalidParams, toolError(method, error, this.#options.logger));
        } finally {
          this.#record(method, { instances: [instance], session, outcome });
        }
      },
    });
  }

  /** `onClosed` is called when the connection ends, by either side or by a message that is too long. */
  async connectStdio(onClosed: () => void): Promise<void> {
    this.#server.onclose = onClosed;
    await this.#server.connect(new CleanStdio());
  }

  async close(): Promise<void> {
    clearTimeout(this.#startTimer);
    this.#log.connect(undefined);
    this.#tasks.close();
    await this.#server.close();
  }

  #start(): void {
    clearTimeout(this.#startTimer);
    const { loadRuntime, logger } = this.#options;
    this.#runtime ??= loadRuntime(this.#log.beside(logger), () => this.#changed());
    // Its failure is told by the call that needs it.
    this.#runtime.catch(() => {});
  }

  async #loaded(): Promise<Runtime> {
    this.#start();
    const runtime = await this.#runtime;
    if (runtime === undefined) throw new Error('discovery was not started');
    return runtime;
  }

  #changed(): void {
    this.#runtime?.then(
      ({ fleet }) => this.#news.changed(() => fleet.snapshot()),
      () => {},
    );
  }

  /** How long a call may take that its client waits for. */
  #run(signal: AbortSignal, hasProgressToken: boolean): CallRun {
    const { clock, sendTimeoutMs } = this.#options;
    const client = this.#server.getClientVersion()?.name;
    return { signal, deadlineMs: clock.monotonic() + callLimitMs(client, hasProgressToken, sendTimeoutMs) };
  }

  #record(tool: string, outcome: RecordedOutcome): void {
    this.#options.record({ client: this.#server.getClientVersion(), tool, ...outcome });
  }

  async #call(tool: Tool, given: Arguments, run: CallRun, notify: Notify | undefined): Promise<CallToolResult> {
    const { signal } = run;
    const reporter = notify === undefined ? undefined : new ProgressReporter(notify);
    const askPerson = this.#mayChange ? personAsker(this.#server, this.#options.clock) : undefined;
    const call: Call = {
      ...run,
      onProgress: (fresh) => reporter?.add(fresh),
      ...(askPerson !== undefined && { askPerson }),
    };
    let args = given;
    let data: unknown;
    try {
      const { describeBadInput, readArguments } = await import('./tools/arguments.ts');
      const listed = this.#options.tools.find(({ name }) => name === tool.name);
      args = readArguments(listed?.inputSchema.properties ?? {}, given);
      const input = tool.input.safeParse(args);
      if (!input.success) return failure(describeBadInput(tool.name, tool.input, args, input.error));
      const answer = await tool.run(await this.#loaded(), input.data as never, call);
      data = answer.data;
      return { content: [{ type: 'text', text: answer.text }], structuredContent: data as Record<string, unknown> };
    } catch (error) {
      return failure(toolError(tool.name, error, this.#options.logger));
    } finally {
      reporter?.end();
      void import('./tools/recorded-call.ts').then(({ outcomeOf }) => {
        const outcome = outcomeOf(args, data, signal);
        if (outcome !== undefined) this.#record(tool.name, outcome);
      });
    }
  }

  /** Tools are loaded when the first is called: their list is ready-made. */
  async #tool(name: string): Promise<Tool | undefined> {
    if (!this.#options.tools.some((listed) => listed.name === name)) return undefined;
    const { TOOLS } = await import('./tools/tools.ts');
    return TOOLS.find((tool) => tool.name === name);
  }

  #unknownTool(name: string): string {
    return `Unknown tool ${JSON.stringify(name.slice(0, 100))}; there are: ${this.#options.tools.map((tool) => tool.name).join(', ')}`;
  }
}

function failure(text: string): CallToolResult {
  return { isError: true, content: [{ type: 'text', text }] };
}

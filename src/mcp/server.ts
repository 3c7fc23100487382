import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { RecordEntry } from '../operations/call-record.ts';
import type { Runtime } from '../operations/runtime.ts';
import { CleanStdio } from './clean-stdio.ts';
import { ClientLog } from './features/client-log.ts';
import { featureMethods } from './features/features.ts';
import type { FleetNews } from './features/fleet-news.ts';
import { instructions } from './instructions.ts';
import type { LegacyServer } from './legacy/legacy-server.ts';
import type { Core, SendNotification } from './core.ts';
import { ModernServer } from './modern/modern-server.ts';
import { ToolCalls } from './tool-calls.ts';
import type { ListedTool } from './tools/listing.ts';
import type { RecordedOutcome } from './tools/recorded-call.ts';
import { toolError } from './tools/tool-error.ts';
import { INVALID_PARAMS, INVALID_REQUEST, invalidParams, isObject, isRequestId, type OwnMessage } from './wire.ts';

export interface McpServerOptions {
  readonly version: string;
  /** The offered tools, as they are listed. */
  readonly tools: readonly ListedTool[];
  readonly stateDir: string;
  readonly sendTimeoutMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Returns at once; never throws. */
  readonly record: (entry: RecordEntry) => void;
  /** Loads what the tools need and starts discovery; called once. `logger` writes to the client too. */
  readonly loadRuntime: (logger: Logger, onChange: () => void) => Promise<Runtime>;
}

/**
 * The MCP server: one reader and two eras of the protocol. Each message shows its era. A request with the envelope of 2026-07-28
 * goes to `modern`. A bare `initialize` loads `legacy`, which takes all other messages from then on.
 */
export class McpServer {
  readonly #options: McpServerOptions;
  readonly #stdio = new CleanStdio();
  readonly #core: Core;
  readonly #modern: ModernServer;
  #legacy: Promise<LegacyServer> | undefined;
  #runtime: Promise<Runtime> | undefined;

  constructor(options: McpServerOptions) {
    this.#options = options;
    this.#core = this.#makeCore();
    this.#modern = new ModernServer(this.#core);
  }

  /** Calls `onClosed` if a message is too long, which ends the connection. */
  connectStdio(onClosed: () => void): void {
    this.#stdio.start({
      onMessage: (message) => this.#take(message),
      onTooLong: (reason) => {
        this.#options.logger.log('warn', `MCP: ${reason}`);
        onClosed();
      },
    });
  }

  async close(): Promise<void> {
    this.#stdio.close();
    await Promise.all([this.#legacy?.then((legacy) => legacy.close()), this.#modern.close()]);
  }

  #take(message: unknown): void {
    if (this.#modern.take(message)) return;
    const { jsonrpc, id, method } = isObject(message) ? message : {};
    if (method === 'initialize') this.#legacy ??= this.#loadLegacy();
    if (this.#legacy !== undefined)
      void this.#legacy.then((legacy) => {
        const problem = legacy.take(message);
        if (problem !== undefined) this.#refuse(message, problem);
      });
    else if (jsonrpc !== '2.0' || typeof method !== 'string' || (id !== undefined && !isRequestId(id)))
      this.#refuse(message, 'the message does not fit: it is neither a request nor an answer');
    // A client may check that the server is alive before its first request.
    else if (method === 'ping') void this.#core.send({ jsonrpc, id, result: {} });
    else if (id !== undefined) void this.#core.send({ jsonrpc, id, error: { code: INVALID_PARAMS, message: BARE } });
  }

  async #loadLegacy(): Promise<LegacyServer> {
    const { LegacyServer: Legacy } = await import('./legacy/legacy-server.ts');
    const legacy = new Legacy(this.#core);
    await legacy.connect();
    return legacy;
  }

  /** Logs an invalid message, and answers it if it is a request. */
  #refuse(message: unknown, problem: string): void {
    this.#options.logger.log('warn', `MCP: ${problem}`);
    const { id, method } = isObject(message) ? message : {};
    if (typeof method === 'string' && isRequestId(id))
      void this.#core.send({ jsonrpc: '2.0', id, error: { code: INVALID_REQUEST, message: problem } });
  }

  #makeCore(): Core {
    const { version, stateDir, clock, logger, sendTimeoutMs, tools: listed } = this.#options;
    const names = listed.map(({ name }) => name);
    const news = new Set<FleetNews>();
    const runtime = (): Promise<Runtime> => this.#start();
    const send = (message: OwnMessage): Promise<void> => this.#stdio.send(message);
    const sendNotification: SendNotification = (method, params) => send({ jsonrpc: '2.0', method, params });
    const tools = new ToolCalls({ listed, logger, record: this.#options.record, runtime });
    const features = featureMethods({
      tools: names,
      runtime,
      listed: (shown) => news.forEach((one) => one.listed(shown)),
      onInstance: async (method, { instance, session }, request, work) => {
        let outcome: RecordedOutcome['outcome'] = 'failed';
        try {
          const result = await work();
          outcome = 'ok';
          return result;
        } catch (error) {
          throw invalidParams(toolError(method, error, logger));
        } finally {
          this.#options.record({ client: request.client, tool: method, instances: [instance], session, outcome });
        }
      },
    });
    return {
      info: { name: 'opencode-mcp', version },
      stateDir,
      clock,
      logger,
      sendTimeoutMs,
      instructions: instructions(names),
      mayChange: listed.some(({ annotations }) => annotations?.readOnlyHint === false),
      log: new ClientLog(sendNotification),
      news,
      tools,
      methods: new Map([
        ['tools/list', async () => this.#listTools()],
        ['tools/call', async (params, request) => await tools.run(await tools.read(params), request)],
        ...features,
      ]),
      start: () => void runtime().catch(() => {}),
      runtime,
      send,
      sendNotification,
    };
  }

  #listTools(): object {
    // Discovery starts after the list is written, so that the client does not wait for it.
    setImmediate(() => this.#core.start());
    return { tools: this.#options.tools };
  }

  #start(): Promise<Runtime> {
    const { loadRuntime, logger } = this.#options;
    return (this.#runtime ??= loadRuntime(this.#core.log.beside(logger), () => this.#changed()));
  }

  #changed(): void {
    this.#runtime?.then(
      ({ fleet }) => this.#core.news.forEach((one) => one.changed(() => fleet.snapshot())),
      () => {},
    );
  }
}

const BARE =
  'The request has neither the envelope of 2026-07-28 (params._meta with io.modelcontextprotocol/protocolVersion and clientCapabilities) nor a session: send initialize first, or the envelope with each request.';

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
import type { Core } from './method.ts';
import { ModernServer } from './modern/modern-server.ts';
import { ToolCalls } from './tool-calls.ts';
import type { ListedTool } from './tools/listing.ts';
import type { RecordedOutcome } from './tools/recorded-call.ts';
import { toolError } from './tools/tool-error.ts';
import { INVALID_PARAMS, INVALID_REQUEST, invalidParams, isObject, isRequestId } from './wire.ts';

export interface McpServerOptions {
  readonly version: string;
  /** What is offered, as it is listed. */
  readonly tools: readonly ListedTool[];
  readonly stateDir: string;
  readonly sendTimeoutMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Neither waits nor throws. */
  readonly record: (entry: RecordEntry) => void;
  /** Loads and starts what the tools work with; called once, when the first of them needs it or start-up is over. `logger` tells the client too. */
  readonly loadRuntime: (logger: Logger, onChange: () => void) => Promise<Runtime>;
}

/**
 * The MCP side of the program: one reader and two eras, told apart by each message. What carries the envelope of 2026-07-28 is
 * served by `modern`; a bare `initialize` loads `legacy`, which gets the other messages from then on.
 */
export class McpServer {
  readonly #options: McpServerOptions;
  readonly #stdio = new CleanStdio();
  readonly #core: Core;
  readonly #modern: ModernServer;
  /** What came while it loads. */
  readonly #waiting: unknown[] = [];
  #legacy: LegacyServer | undefined;
  #loadingLegacy: Promise<void> | undefined;
  #runtime: Promise<Runtime> | undefined;

  constructor(options: McpServerOptions) {
    this.#options = options;
    this.#core = this.#makeCore();
    this.#modern = new ModernServer(this.#core, (message) => this.#stdio.send(message));
  }

  /** `onClosed` is called when the connection ends by a message that is too long. */
  connectStdio(onClosed: () => void): void {
    this.#stdio.onmessage = (message) => this.#take(message);
    this.#stdio.onerror = ({ message }) => this.#options.logger.log('warn', `MCP: ${message}`);
    this.#stdio.onclose = onClosed;
    this.#stdio.start();
  }

  async close(): Promise<void> {
    this.#stdio.onclose = () => {};
    this.#stdio.close();
    await Promise.all([this.#legacy?.close(), this.#modern.close()]);
  }

  #take(message: unknown): void {
    if (this.#modern.take(message)) return;
    if (this.#legacy !== undefined) this.#legacy.take(message);
    else if (this.#loadingLegacy !== undefined) this.#waiting.push(message);
    else if (isObject(message) && message['method'] === 'initialize') {
      this.#waiting.push(message);
      this.#loadingLegacy = this.#loadLegacy();
    } else this.#refuse(message);
  }

  async #loadLegacy(): Promise<void> {
    const { LegacyServer: Legacy } = await import('./legacy/legacy-server.ts');
    const legacy = new Legacy(this.#core, (message) => this.#stdio.send(message));
    await legacy.connect();
    this.#legacy = legacy;
    for (const message of this.#waiting.splice(0)) legacy.take(message);
  }

  /** Of neither era. */
  #refuse(message: unknown): void {
    const { jsonrpc, id, method } = isObject(message) ? message : {};
    const isRequest = typeof method === 'string' && isRequestId(id);
    if (jsonrpc !== '2.0' || !isRequest) {
      if (typeof method !== 'string' || jsonrpc !== '2.0' || id !== undefined)
        this.#options.logger.log('warn', 'MCP: the message does not fit: it is neither a request nor an answer');
      if (isRequest)
        void this.#stdio.send({
          jsonrpc: '2.0',
          id,
          error: { code: INVALID_REQUEST, message: 'jsonrpc must be "2.0"' },
        });
      return;
    }
    // A client may see whether anybody is there before it begins.
    if (method === 'ping') void this.#stdio.send({ jsonrpc, id, result: {} });
    else void this.#stdio.send({ jsonrpc, id, error: { code: INVALID_PARAMS, message: BARE } });
  }

  #makeCore(): Core {
    const { version, stateDir, clock, logger, sendTimeoutMs, tools: listed } = this.#options;
    const names = listed.map(({ name }) => name);
    const news = new Set<FleetNews>();
    const runtime = (): Promise<Runtime> => this.#loaded();
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
      version,
      stateDir,
      clock,
      logger,
      sendTimeoutMs,
      instructions: instructions(names),
      mayChange: listed.some(({ annotations }) => annotations?.readOnlyHint === false),
      log: new ClientLog(),
      news,
      tools,
      methods: new Map([
        [
          'tools/list',
          async () => {
            // Discovery begins when the list is out, not while a client waits for it.
            setImmediate(() => this.#start());
            return { tools: listed };
          },
        ],
        ['tools/call', async (params, request) => await tools.run(await tools.read(params), request)],
        ...features,
      ]),
      start: () => this.#start(),
      runtime,
    };
  }

  #start(): void {
    const { loadRuntime, logger } = this.#options;
    this.#runtime ??= loadRuntime(this.#core.log.beside(logger), () => this.#changed());
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
      ({ fleet }) => this.#core.news.forEach((one) => one.changed(() => fleet.snapshot())),
      () => {},
    );
  }
}

const BARE =
  'The request has neither the envelope of 2026-07-28 (params._meta with io.modelcontextprotocol/protocolVersion and clientCapabilities) nor a session: send initialize first, or the envelope with each request.';

import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import {
  type JSONRPCErrorResponse,
  type JSONRPCMessage,
  JSONRPCMessageSchema,
  JSONRPCRequestSchema,
  type LoggingLevel,
  type ServerCapabilities,
  type ServerNotification,
  SetLevelRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { singleLine } from '../../base/plain-text.ts';
import { type OwnMessage, parsed } from '../clean-stdio.ts';
import { resourceNamed } from '../features/features.ts';
import { FleetNews } from '../features/fleet-news.ts';
import type { Core, McpRequest, Method } from '../method.ts';
import {
  INVALID_PARAMS,
  INVALID_REQUEST,
  invalidParams,
  isObject,
  isRequestId,
  type Params,
  textIn,
  unknownMethod,
} from '../wire.ts';
import { callLimitMs } from './client-limits.ts';
import { personAsker } from './person.ts';

/** `completions` go with resources and prompts. */
const CAPABILITIES: ServerCapabilities = {
  tools: {},
  resources: { subscribe: true, listChanged: true },
  prompts: {},
  completions: {},
  logging: {},
};

/** A client that lists no tools gets discovery going after this. */
const START_DISCOVERY_AFTER_MS = 250;

/** Until a client asks for a level it gets what may need somebody's attention. */
const FIRST_LEVEL: LoggingLevel = 'warning';

/** The connection is gone, and its reader with it. */
const ignore = (): void => {};

type Extra = Parameters<NonNullable<Server['fallbackRequestHandler']>>[1];

/** The protocol up to 2025-11-25: one handshake, then a session that lasts. By the SDK, which is used in this folder only. */
export class LegacyServer {
  readonly #core: Core;
  readonly #server: Server;
  readonly #news: FleetNews;
  readonly #transport: Transport;
  readonly #methods: ReadonlyMap<string, Method>;
  #level: LoggingLevel = FIRST_LEVEL;
  #stopLog = ignore;
  #startTimer: NodeJS.Timeout | undefined;

  /** @param send resolves once there is room for the next */
  constructor(core: Core, send: (message: OwnMessage) => Promise<void>) {
    this.#core = core;
    const { version, instructions } = core;
    this.#server = new Server({ name: 'opencode-mcp', version }, { capabilities: CAPABILITIES, instructions });
    this.#news = new FleetNews({
      listChanged: () => this.#notify({ method: 'notifications/resources/list_changed' }),
      updated: (uri) => this.#notify({ method: 'notifications/resources/updated', params: { uri } }),
    });
    core.news.add(this.#news);
    this.#methods = new Map([
      ...core.methods,
      ['resources/subscribe', (params) => this.#subscribe(params)],
      ['resources/unsubscribe', (params) => this.#unsubscribe(params)],
    ]);
    this.#server.fallbackRequestHandler = async ({ method, params = {} }, extra) => {
      const run = this.#methods.get(method);
      if (run === undefined) throw unknownMethod(method);
      return await run(params, this.#request(extra));
    };
    this.#server.setRequestHandler(SetLevelRequestSchema, ({ params }) => {
      this.#level = params.level;
      return {};
    });
    this.#server.oninitialized = () => this.#initialized();
    // The SDK puts whole messages behind its words, and what was said there is not for the log.
    this.#server.onerror = ({ message }) => core.logger.log('warn', `MCP: ${message.replace(/:? *[{[].*/s, '')}`);
    this.#transport = {
      start: async () => {},
      send: async (message) => await send(readable(message)),
      close: async () => this.#transport.onclose?.(),
    };
  }

  async connect(): Promise<void> {
    await this.#server.connect(this.#transport);
  }

  /** A message that is none of the other era's. The SDK drops what does not fit its schema without an answer. */
  take(value: unknown): void {
    const message = JSONRPCMessageSchema.safeParse(withoutTask(value));
    if (message.success) {
      try {
        this.#transport.onmessage?.(message.data);
      } catch (error) {
        // It cannot write down what is nested too deeply.
        this.#core.logger.log('warn', `MCP: a message was passed over: ${error instanceof Error ? error.message : ''}`);
      }
      return;
    }
    const issues = JSONRPCRequestSchema.safeParse(value).error?.issues ?? [];
    const problem = `the message does not fit: ${inWords(issues)}`;
    this.#core.logger.log('warn', `MCP: ${problem}`);
    const { jsonrpc, id, method } = isObject(value) ? value : {};
    if (jsonrpc !== '2.0' || typeof method !== 'string' || !isRequestId(id)) return;
    void this.#transport.send({ jsonrpc, id, error: { code: INVALID_REQUEST, message: problem } });
  }

  async close(): Promise<void> {
    clearTimeout(this.#startTimer);
    this.#stopLog();
    this.#core.news.delete(this.#news);
    await this.#server.close();
  }

  #initialized(): void {
    this.#stopLog();
    // The same level filter for everyone is ours: the SDK's lets everything through until a level is set.
    this.#stopLog = this.#core.log.connect({
      level: () => this.#level,
      send: (message) => this.#notify({ method: 'notifications/message', params: { ...message } }),
    });
    clearTimeout(this.#startTimer);
    this.#startTimer = setTimeout(() => this.#core.start(), START_DISCOVERY_AFTER_MS);
  }

  #notify(notification: ServerNotification): Promise<void> {
    return this.#server.notification(notification).catch(ignore);
  }

  async #subscribe(params: Params): Promise<object> {
    const uri = textIn(params, 'uri');
    resourceNamed(uri);
    const { fleet } = await this.#core.runtime();
    if (!this.#news.subscribe(uri, fleet.snapshot()))
      throw invalidParams('Too many subscriptions; unsubscribe some first');
    return {};
  }

  async #unsubscribe(params: Params): Promise<object> {
    this.#news.unsubscribe(textIn(params, 'uri'));
    return {};
  }

  #request({ signal, _meta, sendNotification }: Extra): McpRequest {
    const { clock, sendTimeoutMs, mayChange } = this.#core;
    const client = this.#server.getClientVersion();
    const token = _meta?.progressToken;
    return {
      signal,
      client,
      deadlineMs: clock.monotonic() + callLimitMs(client?.name, token !== undefined, sendTimeoutMs),
      notify:
        token === undefined
          ? undefined
          : (progress, text) =>
              sendNotification({
                method: 'notifications/progress',
                params: { progressToken: token, progress, ...(text !== undefined && { message: text }) },
              }).catch(ignore),
      askPerson: mayChange ? personAsker(this.#server, clock) : undefined,
    };
  }
}

/** Who declares no tasks has to pass over a wish for one (2025-11-25), and the SDK refuses it. */
function withoutTask(message: unknown): unknown {
  if (!isObject(message) || !isObject(message['params'])) return message;
  const { task: _, ...params } = message['params'];
  return { ...message, params };
}

/** Of zod's. */
interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

const MAX_ISSUES = 5;
const MAX_ISSUE_CHARS = 200;

/** The SDK answers a request that does not fit its schema with zod's issues as JSON of several lines. */
function readable(message: JSONRPCMessage): OwnMessage {
  if (!('error' in message)) return message;
  return { ...message, error: readableError(message.error) };
}

function readableError(error: JSONRPCErrorResponse['error']): JSONRPCErrorResponse['error'] {
  const start = error.message.indexOf('[\n  {');
  const issues = start === -1 ? undefined : parsed(error.message.slice(start));
  if (!Array.isArray(issues)) return error;
  return { code: INVALID_PARAMS, message: `The request does not fit: ${inWords(issues as readonly Issue[])}` };
}

function inWords(issues: readonly Issue[]): string {
  return issues
    .slice(0, MAX_ISSUES)
    .map(({ path, message }) => singleLine([path.join('.'), message].filter(Boolean).join(': '), MAX_ISSUE_CHARS))
    .join('; ');
}

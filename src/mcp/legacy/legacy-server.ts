import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import type { Transport } from '@modelcontextprotocol/sdk/shared/transport.js';
import {
  type JSONRPCErrorResponse,
  type JSONRPCMessage,
  JSONRPCMessageSchema,
  JSONRPCRequestSchema,
  type LoggingLevel,
  SetLevelRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { messageOf } from '../../base/errors.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { AskPerson } from '../../operations/runtime.ts';
import { parsed } from '../clean-stdio.ts';
import { callLimitMs } from '../client-limits.ts';
import { CAPABILITIES, type Core, type McpRequest, type Method } from '../core.ts';
import { resourceNamed } from '../features/features.ts';
import { FleetNews } from '../features/fleet-news.ts';
import { showsForms } from '../elicitation.ts';
import { progressNotifier } from '../progress.ts';
import {
  INVALID_PARAMS,
  invalidParams,
  isObject,
  type OwnMessage,
  type Params,
  textIn,
  unknownMethod,
} from '../wire.ts';
import { personAsker } from './person.ts';

/** Discovery starts this long after the handshake even if the client never lists the tools. */
const START_DISCOVERY_AFTER_MS = 250;

/** Until the client sets a level, it gets only what may need attention. */
const FIRST_LEVEL: LoggingLevel = 'warning';

type Extra = Parameters<NonNullable<Server['fallbackRequestHandler']>>[1];

/** MCP up to 2025-11-25: one handshake, then a session. Uses the SDK, which only this folder loads. */
export class LegacyServer {
  readonly #core: Core;
  readonly #server: Server;
  readonly #news: FleetNews;
  readonly #transport: Transport;
  readonly #methods: ReadonlyMap<string, Method>;
  #askPerson: AskPerson | undefined;
  #startTimer: NodeJS.Timeout | undefined;
  /** The client has set the level of its log, which it may do before it is initialized. */
  #hasLevel = false;

  constructor(core: Core) {
    this.#core = core;
    this.#server = new Server(core.info, { capabilities: CAPABILITIES, instructions: core.instructions });
    this.#news = new FleetNews(core.sendNotification);
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
    // Replaces the SDK's own handler, which sends every line until a level is set.
    this.#server.setRequestHandler(SetLevelRequestSchema, ({ params }) => {
      this.#hasLevel = true;
      core.log.setLevel(this, params.level);
      return {};
    });
    this.#server.oninitialized = () => {
      if (!this.#hasLevel) core.log.setLevel(this, FIRST_LEVEL);
      clearTimeout(this.#startTimer);
      this.#startTimer = setTimeout(() => core.start(), START_DISCOVERY_AFTER_MS);
    };
    // The SDK appends the whole message, whose text must not get into the log.
    this.#server.onerror = ({ message }) => core.logger.log('warn', `MCP: ${message.replace(/:? *[{[].*/s, '')}`);
    this.#transport = {
      start: async () => {},
      send: async (message) => await core.send(readable(message)),
      close: async () => this.#transport.onclose?.(),
    };
  }

  async connect(): Promise<void> {
    await this.#server.connect(this.#transport);
  }

  /** Returns why the message is not valid; undefined if it is. The SDK would drop an invalid request without an answer. */
  take(value: unknown): string | undefined {
    const message = JSONRPCMessageSchema.safeParse(withoutTask(value));
    if (!message.success)
      return `the message does not fit: ${inWords(JSONRPCRequestSchema.safeParse(value).error?.issues ?? [])}`;
    try {
      this.#transport.onmessage?.(message.data);
    } catch (error) {
      // The SDK cannot print a message that is nested too deeply.
      this.#core.logger.log('warn', `MCP: ignored a message: ${messageOf(error)}`);
    }
    return undefined;
  }

  async close(): Promise<void> {
    clearTimeout(this.#startTimer);
    this.#core.log.setLevel(this, undefined);
    this.#core.news.delete(this.#news);
    await this.#server.close();
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

  #request({ signal, _meta }: Extra): McpRequest {
    const { clock, sendTimeoutMs, mayChange, sendNotification } = this.#core;
    const client = this.#server.getClientVersion();
    const token = _meta?.progressToken;
    // A client that initializes once more may be another one.
    const canAsk = mayChange && showsForms(this.#server.getClientCapabilities()?.elicitation);
    return {
      signal,
      client,
      deadlineMs: clock.monotonic() + callLimitMs(client?.name, token !== undefined, sendTimeoutMs),
      notify: progressNotifier(token, sendNotification, () => signal.aborted),
      askPerson: canAsk ? (this.#askPerson ??= personAsker(this.#server, clock)) : undefined,
    };
  }
}

/** A client of 2025-11-25 may ask for a task. A server without tasks must ignore that, but the SDK refuses the request. */
function withoutTask(message: unknown): unknown {
  if (!isObject(message) || !isObject(message['params'])) return message;
  const { task: _, ...params } = message['params'];
  return { ...message, params };
}

/** An issue of zod's. */
interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

const MAX_ISSUES = 5;
const MAX_ISSUE_CHARS = 200;

/** The SDK answers a request that does not fit its schema with zod's issues, as JSON on several lines. */
function readable(message: JSONRPCMessage): OwnMessage {
  return 'error' in message ? { ...message, error: readableError(message.error) } : message;
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

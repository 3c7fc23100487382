import type { LoggingLevel } from '@modelcontextprotocol/sdk/types.js';

import type { OwnMessage } from '../clean-stdio.ts';
import { showsForms } from '../elicitation.ts';
import { lowestLevel } from '../features/client-log.ts';
import type { Core, McpRequest } from '../method.ts';
import {
  INTERNAL_ERROR,
  invalidParams,
  isObject,
  isRequestId,
  type Params,
  type RequestId,
  RpcError,
  textIn,
  unknownMethod,
} from '../wire.ts';
import {
  declaresTasks,
  type Envelope,
  isEnveloped,
  missingTasks,
  PROTOCOL_VERSION,
  readEnvelope,
  SERVER_INFO,
  TASKS_EXTENSION,
} from './envelope.ts';
import { asksForTasks, listen } from './listen.ts';
import type { Retries } from './retries.ts';
import type { Tasks } from './tasks.ts';

/** What there is beside tools. */
const CAPABILITIES = {
  tools: {},
  resources: { subscribe: true, listChanged: true },
  prompts: {},
  completions: {},
  logging: {},
  extensions: { [TASKS_EXTENSION]: {} },
} as const;

/** The same for everyone, until this process ends. */
const STANDING = { ttlMs: 3_600_000, cacheScope: 'public' } as const;
/** One person's, and old in a moment. */
const FLEETING = { ttlMs: 1_000, cacheScope: 'private' } as const;
const CACHE = new Map<string, typeof STANDING | typeof FLEETING>([
  ['server/discover', STANDING],
  ['tools/list', STANDING],
  ['prompts/list', STANDING],
  ['resources/templates/list', STANDING],
  ['resources/list', FLEETING],
  ['resources/read', FLEETING],
]);

/** Clients that ask for no progress give up after a minute, as the SDKs' own do. */
const SILENT_CALL_MS = 48_000;

/** More than a client has use for; each is gone through at every change of the fleet. */
const MAX_LISTENERS = 100;

/** One request, whose id the client may name to cancel it. */
interface Running {
  readonly ending: AbortController;
  /** Nothing is told of it any more. */
  isAnswered: boolean;
}

/** 2026-07-28: no handshake and no session. Each request says what it needs, and whatever began it may be forgotten after its answer. */
export class ModernServer {
  readonly #core: Core;
  readonly #send: (message: OwnMessage) => Promise<void>;
  readonly #running = new Map<RequestId, Running>();
  /** Of the requests that asked for the log. */
  readonly #levels = new Map<Running, LoggingLevel>();
  readonly #stopLog: () => void;
  /** Those whose answer is their end. */
  readonly #listening = new Set<Promise<void>>();
  #tasks: Promise<Tasks> | undefined;
  #retries: Promise<Retries> | undefined;
  #isClosing = false;

  /** @param send resolves once there is room for the next */
  constructor(core: Core, send: (message: OwnMessage) => Promise<void>) {
    this.#core = core;
    this.#send = send;
    this.#stopLog = core.log.connect({
      level: () => lowestLevel(this.#levels.values()),
      send: async (message) => await this.#tell('notifications/message', { ...message }),
    });
  }

  /** False where the message is of the other era. */
  take(message: unknown): boolean {
    const { jsonrpc, id, method, params } = isObject(message) ? message : {};
    if (jsonrpc !== '2.0' || typeof method !== 'string') return false;
    if (id === undefined) return this.#takeNotification(method, params);
    if (!isRequestId(id) || !isEnveloped(params)) return false;
    const answered = this.#answer(id, method, params as Params);
    if (method !== 'subscriptions/listen') return true;
    this.#listening.add(answered);
    void answered.then(() => this.#listening.delete(answered));
    return true;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#stopLog();
    for (const { ending } of this.#running.values()) ending.abort();
    (await this.#tasks)?.close();
    await Promise.all(this.#listening);
  }

  #takeNotification(method: string, params: unknown): boolean {
    const requestId = isObject(params) ? params['requestId'] : undefined;
    const running = method === 'notifications/cancelled' ? this.#running.get(requestId as RequestId) : undefined;
    running?.ending.abort();
    return running !== undefined || isEnveloped(params);
  }

  async #answer(id: RequestId, method: string, params: Params): Promise<void> {
    const running: Running = { ending: new AbortController(), isAnswered: false };
    this.#running.set(id, running);
    let answer: OwnMessage;
    try {
      const envelope = readEnvelope(params);
      if (envelope.logLevel !== undefined) this.#levels.set(running, envelope.logLevel);
      const result = await this.#run({ id, method, params, envelope, running });
      answer = { result: { resultType: 'complete', ...CACHE.get(method), ...result } };
    } catch (error) {
      answer = { error: this.#errorOf(error) };
    }
    running.isAnswered = true;
    this.#levels.delete(running);
    if (this.#running.get(id) === running) this.#running.delete(id);
    // What was cancelled gets no answer; a listener does, when it is this server that ends it.
    if (!running.ending.signal.aborted || (this.#isClosing && method === 'subscriptions/listen'))
      await this.#send({ jsonrpc: '2.0', id, ...answer });
  }

  async #run({ id, method, params, envelope, running }: Asked): Promise<object> {
    const request = this.#request(envelope, running);
    switch (method) {
      case 'server/discover':
        return this.#discover();
      case 'tools/call':
        return await this.#callTool(params, request, envelope);
      case 'subscriptions/listen': {
        if (asksForTasks(params) && !declaresTasks(envelope)) throw missingTasks();
        if (this.#listening.size >= MAX_LISTENERS) throw invalidParams('Too many subscriptions; cancel some first');
        const { signal } = running.ending;
        return await listen(this.#core, params, { id, signal, tell: (...told) => this.#tell(...told) });
      }
      case 'tasks/get':
      case 'tasks/update':
      case 'tasks/cancel': {
        if (!declaresTasks(envelope)) throw missingTasks();
        const taskId = textIn(params, 'taskId');
        const tasks = await this.#loadTasks();
        if (method === 'tasks/cancel') return await tasks.cancel(taskId);
        const canAsk = this.#canAsk(envelope);
        return method === 'tasks/get' ? await tasks.get(taskId, canAsk) : await tasks.update(taskId, params, canAsk);
      }
      default: {
        const run = this.#core.methods.get(method);
        if (run === undefined) throw unknownMethod(method);
        return await run(params, request);
      }
    }
  }

  #discover(): object {
    const { version, instructions } = this.#core;
    return {
      supportedVersions: [PROTOCOL_VERSION],
      capabilities: CAPABILITIES,
      instructions,
      _meta: { [SERVER_INFO]: { name: 'opencode-mcp', version } },
    };
  }

  async #callTool(params: Params, request: McpRequest, envelope: Envelope): Promise<object> {
    const { tools } = this.#core;
    const call = await tools.read(params);
    const canAsk = this.#canAsk(envelope);
    const follows = call.problem === undefined && call.tool.followsTurn?.(call.args) === true;
    // What began as a call goes on as one: a task would send its message again.
    const isRetry = params['requestState'] !== undefined;
    if (follows && !isRetry && declaresTasks(envelope)) {
      const task = await (await this.#loadTasks()).begin(call, request, canAsk);
      if (task !== undefined) return task;
    }
    // What only looks never asks: it needs no key.
    const mayAsk = canAsk && (call.tool.followsTurn !== undefined || !call.tool.annotations.readOnlyHint);
    if (!mayAsk && !isRetry) return await tools.run(call, request);
    return await (await this.#loadRetries()).run(call, request, params, canAsk);
  }

  #canAsk({ capabilities }: Envelope): boolean {
    return this.#core.mayChange && showsForms(capabilities['elicitation']);
  }

  #loadTasks(): Promise<Tasks> {
    return (this.#tasks ??= import('./tasks.ts').then((module) => new module.Tasks(this.#core)));
  }

  #loadRetries(): Promise<Retries> {
    return (this.#retries ??= import('./retries.ts').then((module) => new module.Retries(this.#core)));
  }

  #request({ client, progressToken }: Envelope, running: Running): McpRequest {
    const { clock, sendTimeoutMs } = this.#core;
    // Progress keeps a call alive, and only who waits on it asks for it.
    const limitMs = progressToken === undefined ? Math.min(SILENT_CALL_MS, sendTimeoutMs) : sendTimeoutMs;
    return {
      signal: running.ending.signal,
      client,
      deadlineMs: clock.monotonic() + limitMs,
      notify:
        progressToken === undefined
          ? undefined
          : async (progress, message) => {
              if (running.isAnswered) return;
              await this.#tell('notifications/progress', {
                progressToken,
                progress,
                ...(message !== undefined && { message }),
              });
            },
    };
  }

  async #tell(method: string, params: Params): Promise<void> {
    await this.#send({ jsonrpc: '2.0', method, params });
  }

  #errorOf(error: unknown): object {
    if (error instanceof RpcError) {
      const { code, message, data } = error;
      return { code, message, ...(data !== undefined && { data }) };
    }
    const message = error instanceof Error ? error.message : String(error);
    this.#core.logger.log('error', `MCP: ${error instanceof Error ? (error.stack ?? message) : message}`);
    return { code: INTERNAL_ERROR, message };
  }
}

interface Asked {
  readonly id: RequestId;
  readonly method: string;
  readonly params: Params;
  readonly envelope: Envelope;
  readonly running: Running;
}

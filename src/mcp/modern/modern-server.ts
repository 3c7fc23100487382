import { messageOf } from '../../base/errors.ts';
import { UNKNOWN_CLIENT_MS } from '../client-limits.ts';
import { CAPABILITIES, type Core, type McpRequest } from '../core.ts';
import { showsForms } from '../elicitation.ts';
import { progressNotifier } from '../progress.ts';
import {
  INTERNAL_ERROR,
  invalidParams,
  isObject,
  isRequestId,
  type OwnMessage,
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

/** The same for everyone until this process ends. */
const STANDING = { ttlMs: 3_600_000, cacheScope: 'public' } as const;
/** How a client may cache results: for this person only, and not for long. */
const FLEETING = { ttlMs: 1_000, cacheScope: 'private' } as const;
const CACHE = new Map<string, typeof STANDING | typeof FLEETING>([
  ['server/discover', STANDING],
  ['tools/list', STANDING],
  ['prompts/list', STANDING],
  ['resources/templates/list', STANDING],
  ['resources/list', FLEETING],
  ['resources/read', FLEETING],
]);

/** More than a client has use for; each change of the fleet goes through all of them. */
const MAX_LISTENERS = 100;

interface Running {
  readonly id: RequestId;
  readonly method: string;
  readonly params: Params;
  /** Aborts when the client cancels the request by its id, or the server closes. */
  readonly ending: AbortController;
  isAnswered: boolean;
}

/** MCP 2026-07-28: no handshake, no session. Each request carries all that it needs. */
export class ModernServer {
  readonly #core: Core;
  readonly #running = new Map<RequestId, Running>();
  /** Answers of listeners, which come when the server closes. */
  readonly #listening = new Set<Promise<void>>();
  #tasks: Promise<Tasks> | undefined;
  #retries: Promise<Retries> | undefined;
  #isClosing = false;

  constructor(core: Core) {
    this.#core = core;
  }

  /** False if the message belongs to the other era. */
  take(message: unknown): boolean {
    const { jsonrpc, id, method, params } = isObject(message) ? message : {};
    if (jsonrpc !== '2.0' || typeof method !== 'string') return false;
    if (id === undefined) return this.#takeNotification(method, params);
    if (!isRequestId(id) || !isEnveloped(params)) return false;
    const answered = this.#answer({
      id,
      method,
      params: params as Params,
      ending: new AbortController(),
      isAnswered: false,
    });
    if (method !== 'subscriptions/listen') return true;
    this.#listening.add(answered);
    void answered.then(() => this.#listening.delete(answered));
    return true;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
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

  async #answer(running: Running): Promise<void> {
    const { id, method, params, ending } = running;
    this.#running.set(id, running);
    let answer: OwnMessage;
    try {
      const envelope = readEnvelope(params);
      this.#core.log.setLevel(running, envelope.logLevel);
      const result = await this.#run(running, envelope);
      answer = { result: { resultType: 'complete', ...CACHE.get(method), ...result } };
    } catch (error) {
      answer = { error: this.#errorOf(error) };
    }
    running.isAnswered = true;
    this.#core.log.setLevel(running, undefined);
    if (this.#running.get(id) === running) this.#running.delete(id);
    // A cancelled request gets no answer. A listener gets one when this server ends it.
    if (!ending.signal.aborted || (this.#isClosing && method === 'subscriptions/listen'))
      await this.#core.send({ jsonrpc: '2.0', id, ...answer });
  }

  async #run(running: Running, envelope: Envelope): Promise<object> {
    const { id, method, params, ending } = running;
    const request = this.#request(envelope, running);
    switch (method) {
      case 'server/discover':
        return this.#discover();
      case 'tools/call':
        return await this.#callTool(params, request, envelope);
      case 'subscriptions/listen':
        if (asksForTasks(params) && !declaresTasks(envelope)) throw missingTasks();
        if (this.#listening.size >= MAX_LISTENERS) throw invalidParams('Too many subscriptions; cancel some first');
        return await listen(this.#core, params, { id, signal: ending.signal });
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
    const { info, instructions } = this.#core;
    return {
      supportedVersions: [PROTOCOL_VERSION],
      capabilities: { ...CAPABILITIES, extensions: { [TASKS_EXTENSION]: {} } },
      instructions,
      _meta: { [SERVER_INFO]: info },
    };
  }

  async #callTool(params: Params, request: McpRequest, envelope: Envelope): Promise<object> {
    const { tools } = this.#core;
    const call = await tools.read(params);
    const canAsk = this.#canAsk(envelope);
    const follows = call.problem === undefined && call.tool.followsTurn?.(call.args) === true;
    // A call that is repeated with its answer stays a call: a task would send its message again.
    const isRetry = params['requestState'] !== undefined;
    if (follows && !isRetry && declaresTasks(envelope)) {
      const task = await (await this.#loadTasks()).begin(call, request, canAsk);
      if (task !== undefined) return task;
    }
    // Tools that only read never ask, so they need no key.
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
    const { clock, sendTimeoutMs, sendNotification } = this.#core;
    const { signal } = running.ending;
    // Progress keeps a call alive, and a client that asks for it waits on it.
    const limitMs = progressToken === undefined ? Math.min(UNKNOWN_CLIENT_MS, sendTimeoutMs) : sendTimeoutMs;
    return {
      signal,
      client,
      deadlineMs: clock.monotonic() + limitMs,
      notify: progressNotifier(progressToken, sendNotification, () => running.isAnswered || signal.aborted),
    };
  }

  #errorOf(error: unknown): object {
    if (error instanceof RpcError) {
      const { code, message, data } = error;
      return { code, message, ...(data !== undefined && { data }) };
    }
    const message = messageOf(error);
    this.#core.logger.log('error', `MCP: ${error instanceof Error ? (error.stack ?? message) : message}`);
    return { code: INTERNAL_ERROR, message };
  }
}

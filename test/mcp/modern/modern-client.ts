import type { FakeOpencode } from '../../rig/fake/fake-opencode.ts';
import { until } from '../../rig/wait.ts';
import { type RawServer, type RawServerOptions, startRawServer } from '../raw-server.ts';

export type Data = Readonly<Record<string, unknown>>;

/** The version, capabilities and metadata that a client declares in each request. */
export interface Declared {
  readonly version?: string;
  readonly capabilities?: Data;
  readonly meta?: Data;
}

const NAMESPACE = 'io.modelcontextprotocol/';
export const TASKS = { extensions: { [`${NAMESPACE}tasks`]: {} } } as const;
export const FORMS = { elicitation: { form: {} } } as const;
/** Declared by Claude Code in a terminal. */
export const TASKS_AND_FORMS = { ...TASKS, ...FORMS } as const;

export function enveloped(params: Data = {}, { version = '2026-07-28', capabilities = {}, meta }: Declared = {}): Data {
  return {
    ...params,
    _meta: {
      [`${NAMESPACE}protocolVersion`]: version,
      [`${NAMESPACE}clientInfo`]: { name: 'modern', version: '1.0.0' },
      [`${NAMESPACE}clientCapabilities`]: capabilities,
      ...meta,
    },
  };
}

/** A task as `tasks/get` shows it. */
export interface TaskShown {
  readonly taskId: string;
  readonly status: string;
  readonly statusMessage: string;
  readonly ttlMs: number;
  readonly pollIntervalMs: number;
  readonly inputRequests?: Readonly<Record<string, { readonly method: string; readonly params: Data }>>;
  readonly result?: Data;
}

/** A client of 2026-07-28 for the built server. */
export class ModernClient implements AsyncDisposable {
  readonly server: RawServer;
  #id = 1_000;

  constructor(options: RawServerOptions = {}) {
    this.server = startRawServer(options);
  }

  /** Writes a request and returns its id. */
  write(method: string, params?: Data, declared?: Declared): number {
    const id = this.nextId();
    this.server.write({ jsonrpc: '2.0', id, method, params: enveloped(params, declared) });
    return id;
  }

  nextId(): number {
    return (this.#id += 1);
  }

  cancel(requestId: number): void {
    this.server.write({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId } });
  }

  /** Sends a request and returns the whole answer. */
  async answer(method: string, params?: Data, declared?: Declared): ReturnType<RawServer['answerTo']> {
    return await this.server.answerTo(this.write(method, params, declared));
  }

  /** Sends a request and returns its result. @throws if the answer is an error */
  async ask(method: string, params?: Data, declared?: Declared): Promise<Data> {
    const { result, error } = await this.answer(method, params, declared);
    if (result === undefined) throw new Error(`${method}: ${JSON.stringify(error)}`);
    return result;
  }

  async call(name: string, args: Data, declared?: Declared, more: Data = {}): Promise<Data> {
    return await this.ask('tools/call', { name, arguments: args, ...more }, declared);
  }

  /** Calls a tool and returns the task that runs the call. */
  async begin(name: string, args: Data, capabilities: Data = TASKS_AND_FORMS): Promise<TaskShown> {
    return (await this.call(name, args, { capabilities })) as unknown as TaskShown;
  }

  async task(taskId: string, capabilities: Data = TASKS_AND_FORMS): Promise<TaskShown> {
    return (await this.ask('tasks/get', { taskId }, { capabilities })) as unknown as TaskShown;
  }

  async update(taskId: string, inputResponses: Data): Promise<Data> {
    return await this.ask('tasks/update', { taskId, inputResponses }, { capabilities: TASKS_AND_FORMS });
  }

  /** Starts a task that sends `run` to `worker` and follows that turn. */
  async follow(worker: FakeOpencode): Promise<{ readonly task: TaskShown; readonly sessionId: string }> {
    const task = await this.begin('send', { instance: 'worker', message: 'run' });
    await until('the turn to be followed', () => worker.state.statuses.size === 1 && worker.openStreams === 1);
    const [sessionId = ''] = worker.state.statuses.keys();
    return { task, sessionId };
  }

  /** Polls until the task is in one of these states. */
  async taskIs(taskId: string, ...statuses: readonly string[]): Promise<TaskShown> {
    return await until(`the task to be ${statuses.join(' or ')}`, async () => {
      const task = await this.task(taskId);
      return statuses.includes(task.status) ? task : undefined;
    });
  }

  /** All notifications received so far. */
  get notifications(): readonly { readonly method: string; readonly params: Data }[] {
    return this.server.stdout
      .map((line) => JSON.parse(line) as { id?: unknown; method: string; params: Data })
      .filter(({ id, method }) => id === undefined && method !== undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

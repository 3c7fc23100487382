import { randomUUID } from 'node:crypto';
import { join } from 'node:path';

import { invalidParams, objectIn, type Params } from '../wire.ts';
import type { Core, McpRequest } from '../core.ts';
import type { CallExtras, ToolCall } from '../tool-calls.ts';
import { Task, type TaskRun } from './task.ts';
import { type KeptTask, TASK_TTL_MS, TaskStore } from './task-store.ts';

/** What runs for one client; more is a fault, and those calls are answered as calls. */
const MAX_TASKS = 100;

/** What is said to an agent is not kept: a message that was not sent by the time this process ends is not sent by another. */
const NOT_KEPT: Readonly<Record<string, readonly string[]>> = { send: ['message'] };

/**
 * Calls that go on in the background (extension io.modelcontextprotocol/tasks). Each is kept with what finds its turn again, so
 * that another process goes on with it when the client asks that one.
 */
export class Tasks {
  readonly #core: Core;
  readonly #store: TaskStore;
  /** Those of this process that have not ended, or cannot be kept. */
  readonly #running = new Map<string, Task>();
  /** Those that are read from the store just now. */
  readonly #reading = new Map<string, Promise<Task>>();

  constructor(core: Core) {
    this.#core = core;
    this.#store = new TaskStore(join(core.stateDir, 'tasks'), core.clock);
  }

  /** Starts the call and says how to find it; undefined where it can only be a call that is waited for. */
  async begin(call: ToolCall, request: McpRequest, canAsk: boolean): Promise<object | undefined> {
    const { clock, logger } = this.#core;
    if (this.#running.size >= MAX_TASKS) return undefined;
    const nowMs = clock.now();
    const { name } = call.tool;
    const args = Object.fromEntries(Object.entries(call.args).filter(([key]) => !NOT_KEPT[name]?.includes(key)));
    const kept: KeptTask = { tool: name, args, createdAtMs: nowMs, updatedAtMs: nowMs, ttlMs: TASK_TTL_MS, begun: [] };
    const id = randomUUID();
    try {
      await this.#store.write(id, kept);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      logger.log('warn', 'a call cannot go on in the background: its task cannot be kept', { reason });
      return undefined;
    }
    const task = new Task(this.#core, id, kept, (changed) => this.#store.write(id, changed));
    this.#start(id, task, call, { client: request.client, canAsk, until: request.signal });
    return { ...task.view(), resultType: 'task' };
  }

  /** @throws {RpcError} there is none */
  async get(id: string, canAsk: boolean): Promise<object> {
    return (await this.#find(id, canAsk)).detail();
  }

  /** Answers to its questions. One that comes too late, or to nothing, is passed over. @throws {RpcError} there is no such task */
  async update(id: string, params: Params, canAsk: boolean): Promise<object> {
    const responses = objectIn(params, 'inputResponses');
    (await this.#find(id, canAsk)).answer(responses);
    return {};
  }

  /** @throws {RpcError} there is none */
  async cancel(id: string): Promise<object> {
    await (await this.#find(id, false)).cancel();
    return {};
  }

  /** Ends what this process does of them: another may go on. */
  close(): void {
    for (const task of this.#running.values()) task.leave();
  }

  async #find(id: string, canAsk: boolean): Promise<Task> {
    const known = this.#running.get(id);
    if (known !== undefined) return known;
    const reading = this.#reading.get(id) ?? this.#read(id, canAsk);
    this.#reading.set(id, reading);
    try {
      return await reading;
    } finally {
      this.#reading.delete(id);
    }
  }

  async #read(id: string, canAsk: boolean): Promise<Task> {
    const kept = await this.#store.read(id);
    if (kept === undefined)
      throw invalidParams(
        `There is no task ${JSON.stringify(id.slice(0, 100))}; a day after its beginning it is forgotten`,
      );
    const task = new Task(this.#core, id, kept, (changed) => this.#store.write(id, changed));
    if (task.isOver) return task;
    const { tool: name, args, begun } = kept;
    const call = await this.#core.tools.read({ name, arguments: args });
    const { resume } = await import('../../operations/send/resume.ts');
    // What only waits, or has settled nothing yet, begins again; a message is never sent again.
    const beginsAgain = begun.length === 0 && NOT_KEPT[name] === undefined;
    const named = Array.isArray(args['instance']) ? args['instance'].filter((one) => typeof one === 'string') : [];
    const work: CallExtras['work'] = beginsAgain
      ? undefined
      : (runtime, running) => resume(runtime, { begun, named }, running);
    this.#start(id, task, call, { client: undefined, canAsk, work });
    return task;
  }

  #start(id: string, task: Task, call: ToolCall, run: TaskRun): void {
    this.#running.set(id, task);
    task.run(call, run).then(
      // From now on the store has it.
      () => this.#running.delete(id),
      (error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error);
        this.#core.logger.log('warn', 'the result of a task cannot be kept; it is gone with this process', { reason });
      },
    );
  }
}

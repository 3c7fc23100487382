import { randomUUID } from 'node:crypto';
import { join } from 'node:path';

import { messageOf } from '../../base/errors.ts';
import { invalidParams, objectIn, type Params } from '../wire.ts';
import type { Core, McpRequest } from '../core.ts';
import type { CallExtras, ToolCall } from '../tool-calls.ts';
import { Task, type TaskRun } from './task.ts';
import { type KeptTask, TASK_TTL_MS, TaskStore } from './task-store.ts';

/** A client has no use for more. Further calls are not run as tasks. */
const MAX_TASKS = 100;

/** Messages to agents are not stored, so a message that this process has not sent when it ends is never sent. */
const NOT_KEPT: Readonly<Record<string, readonly string[]>> = { send: ['message'] };

/**
 * Calls that run in the background (extension io.modelcontextprotocol/tasks). Each is stored with what finds its turn again, so that
 * another process can continue it when the client asks for it there.
 */
export class Tasks {
  readonly #core: Core;
  readonly #store: TaskStore;
  /** Tasks of this process that have not ended, or cannot be stored. */
  readonly #running = new Map<string, Task>();
  /** Tasks that are being read from the store. */
  readonly #reading = new Map<string, Promise<Task>>();

  constructor(core: Core) {
    this.#core = core;
    this.#store = new TaskStore(join(core.stateDir, 'tasks'), core.clock);
  }

  /** Starts the call as a task; undefined if it cannot be one. */
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
      logger.log('warn', 'cannot run a call in the background: cannot save its task', { reason: messageOf(error) });
      return undefined;
    }
    const task = new Task(this.#core, id, kept, (changed) => this.#store.write(id, changed));
    this.#start(id, task, call, { client: request.client, canAsk, until: request.signal });
    return { ...task.view(), resultType: 'task' };
  }

  /** @throws {RpcError} the task is unknown */
  async get(id: string, canAsk: boolean): Promise<object> {
    return (await this.#find(id, canAsk)).detail();
  }

  /** Takes answers to its questions; ignores late and unknown ones. @throws {RpcError} the task is unknown */
  async update(id: string, params: Params, canAsk: boolean): Promise<object> {
    const responses = objectIn(params, 'inputResponses');
    (await this.#find(id, canAsk)).answer(responses);
    return {};
  }

  /** @throws {RpcError} the task is unknown */
  async cancel(id: string): Promise<object> {
    await (await this.#find(id, false)).cancel();
    return {};
  }

  /** Stops following them here; another process may continue. */
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
        `There is no task ${JSON.stringify(id.slice(0, 100))}; tasks are forgotten a day after they start`,
      );
    const task = new Task(this.#core, id, kept, (changed) => this.#store.write(id, changed));
    if (task.isOver) return task;
    const { tool: name, args, begun } = kept;
    const call = await this.#core.tools.read({ name, arguments: args });
    const { resume } = await import('../../operations/send/resume.ts');
    // `wait` and `respond` start again if nothing was answered yet. A message is never sent again.
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
      // The store has it now.
      () => this.#running.delete(id),
      (error: unknown) => {
        this.#core.logger.log('warn', 'cannot save the result of a task; it is lost when this process ends', {
          reason: messageOf(error),
        });
      },
    );
  }
}

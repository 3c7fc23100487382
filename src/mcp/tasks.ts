import { InMemoryTaskStore } from '@modelcontextprotocol/sdk/experimental/tasks/stores/in-memory.js';
import type { CallToolResult, CreateTaskResult, ServerCapabilities } from '@modelcontextprotocol/sdk/types.js';

import type { Clock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Call } from '../operations/runtime.ts';

/** A result that nobody fetched is kept for an hour unless the client asks for less or, up to a day, more. */
const DEFAULT_TTL_MS = 3_600_000;
const LONGEST_TTL_MS = 86_400_000;
const LEAST_TTL_MS = 60_000;
const POLL_MS = 1_000;
/** What waits for its client in one session; more is a fault. */
const MAX_TASKS = 100;

export const TASKS: ServerCapabilities['tasks'] = { requests: { tools: { call: {} } }, list: {}, cancel: {} };

/** A task may take as long as its result is kept, since no call waits for it. */
type TaskRun = Pick<Call, 'signal' | 'deadlineMs'>;

/** Tool calls that the client fetches the results of later (MCP 2025-11-25, experimental). */
export class Tasks extends InMemoryTaskStore {
  readonly #clock: Clock;
  readonly #running = new Map<string, LinkedAbort>();

  constructor(clock: Clock) {
    super();
    this.#clock = clock;
  }

  /**
   * Starts `work` and returns its task at once. Cancelling the task stops following, not the agent; so does cancelling the
   * request, while its client does not know the task yet.
   */
  async begin(
    { requestId, signal }: { readonly requestId: string | number; readonly signal: AbortSignal },
    ttl: number | undefined,
    work: (run: TaskRun) => Promise<CallToolResult>,
  ): Promise<CreateTaskResult> {
    if (this.#running.size >= MAX_TASKS) throw new Error(`${MAX_TASKS} tasks run already; fetch or cancel some`);
    const keptMs = Math.min(LONGEST_TTL_MS, Math.max(LEAST_TTL_MS, ttl ?? DEFAULT_TTL_MS));
    const task = await this.createTask({ ttl: keptMs, pollInterval: POLL_MS }, requestId, { method: 'tools/call' });
    const ending = new LinkedAbort(signal);
    this.#running.set(task.taskId, ending);
    void this.#finish(task.taskId, work({ signal: ending.signal, deadlineMs: this.#clock.monotonic() + keptMs }));
    return { task };
  }

  override async updateTaskStatus(
    ...[taskId, status, message, sessionId]: Parameters<InMemoryTaskStore['updateTaskStatus']>
  ): Promise<void> {
    await super.updateTaskStatus(taskId, status, message, sessionId);
    if (status === 'cancelled') this.#running.get(taskId)?.abort();
  }

  /** Ends every task. */
  close(): void {
    for (const ending of this.#running.values()) ending.abort();
    this.cleanup();
  }

  async #finish(taskId: string, working: Promise<CallToolResult>): Promise<void> {
    const result = await working;
    this.#running.get(taskId)?.end();
    this.#running.delete(taskId);
    try {
      await this.storeTaskResult(taskId, result.isError === true ? 'failed' : 'completed', result);
    } catch {
      // Cancelled, or its time is over: nobody wants it any more.
    }
  }
}

import type { Clock } from '../clock.ts';
import type { Directory, Reached } from '../directory/directory.ts';
import type { Instance } from '../directory/instance.ts';
import { createApi, type OpencodeApi } from '../opencode/api.ts';
import { SessionLock } from '../turns/session-lock.ts';

/** What every operation works with. */
export interface Runtime {
  readonly directory: Directory;
  readonly clock: Clock;
  readonly lock: SessionLock;
}

/** One call as its caller sees it. */
export interface Call {
  /** Stops the operation; a turn that was started goes on. */
  readonly signal: AbortSignal;
  /** When a blocking operation must have returned, ms since the epoch. */
  readonly deadlineMs: number;
  /** New text of the turn. */
  readonly onProgress: (text: string) => void;
}

/** An instance that answered just now and the calls to it. */
export interface Connected extends Reached {
  readonly api: OpencodeApi;
}

export function createRuntime(directory: Directory, clock: Clock): Runtime {
  return { directory, clock, lock: new SessionLock() };
}

/** Finds the instance that a person means and looks at it again. */
export async function connect(runtime: Runtime, query: string, signal: AbortSignal): Promise<Connected> {
  await runtime.directory.ready();
  return await connectTo(runtime, runtime.directory.resolve(query), signal);
}

export async function connectTo(runtime: Runtime, instance: Instance, signal: AbortSignal): Promise<Connected> {
  const reached = await runtime.directory.reach(instance, signal);
  return { ...reached, api: createApi(reached.connection) };
}

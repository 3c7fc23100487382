import type { Clock } from '../clock.ts';
import type { Directory, Reached } from '../directory/directory.ts';
import type { Instance } from '../directory/instance.ts';
import { createApi, type OpencodeApi } from '../opencode/api.ts';
import type { Heard } from '../turns/outcome.ts';
import { SessionLock } from '../turns/session-lock.ts';
import type { Approvals } from './approval.ts';
import type { RequestJournal } from './request-journal.ts';

/** What every operation works with. */
export interface Runtime {
  readonly directory: Directory;
  readonly clock: Clock;
  readonly lock: SessionLock;
  readonly approvals: Approvals;
  readonly journal: RequestJournal;
  /** What was last heard of the sessions that calls have followed, by instance and session. */
  readonly heard: Map<string, Heard>;
}

/** What the person is asked. */
export interface Question {
  readonly message: string;
  /** A flat form; every field is a string. */
  readonly fields: Readonly<
    Record<string, { readonly title: string; readonly description?: string; readonly choices?: readonly string[] }>
  >;
  readonly required: readonly string[];
}

/** Undefined where the person gave no answer: declined, cancelled, or did not answer in time. */
export type AskPerson = (
  question: Question,
  timeoutMs: number,
) => Promise<Readonly<Record<string, string>> | undefined>;

/** One call as its caller sees it. */
export interface Call {
  /** Stops the operation; a turn that was started goes on. */
  readonly signal: AbortSignal;
  /** When a blocking operation must have returned, ms since the epoch. */
  readonly deadlineMs: number;
  /** New text of the turn. */
  readonly onProgress: (text: string) => void;
  /** Absent where the client cannot ask the person. */
  readonly askPerson?: AskPerson;
}

/** An instance that answered just now and the calls to it. */
export interface Connected extends Reached {
  readonly api: OpencodeApi;
}

export function createRuntime(
  directory: Directory,
  clock: Clock,
  options: { readonly approvals: Approvals; readonly journal: RequestJournal },
): Runtime {
  return { directory, clock, lock: new SessionLock(), heard: new Map(), ...options };
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

/**
 * The same process by whatever way leads to it now: the same registration, or one with the id that only this process was given.
 * Undefined where there is none. Never rejects.
 */
export async function otherWay(
  runtime: Runtime,
  { instance }: Connected,
  signal: AbortSignal,
): Promise<OpencodeApi | undefined> {
  const { id } = instance.claims;
  const now = runtime.directory
    .snapshot()
    .instances.find(({ key, claims }) => key === instance.key || (id !== undefined && claims.id === id));
  if (now === undefined || now.name !== instance.name) return undefined;
  const connected = await connectTo(runtime, now, signal).catch(() => undefined);
  return connected?.directory === instance.directory || instance.directory === undefined ? connected?.api : undefined;
}

import { TOOL_WORDS, type ReaderWords } from '../model/advice.ts';
import type { Clock } from '../base/clock.ts';
import { type Fleet, type Reached, UnreachableError } from '../fleet/fleet.ts';
import type { Instance } from '../model/instance.ts';
import type { Endpoint } from '../model/candidate.ts';
import { createApi } from '../opencode/dialects/dialects.ts';
import { type OpencodeClient, createClient, type EndpointApi } from '../opencode/client.ts';
import type { SignOfLife } from '../turns/outcome.ts';
import { type CallLimit, checkOpen } from '../turns/call-limit.ts';
import { SessionLock } from '../turns/session-lock.ts';
import type { Approvals } from './respond/approval.ts';
import { followUntil } from './send/following.ts';
import type { FollowMarks } from './send/follow-marks.ts';
import type { RequestJournal } from './send/request-journal.ts';
import type { Begun } from './send/resume.ts';

/** What every operation works on. */
export interface Runtime {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly lock: SessionLock;
  readonly approvals: Approvals;
  readonly journal: RequestJournal;
  /** Advice in the words of the reader of the answers. */
  readonly words: ReaderWords;
  /** Absent if no notifications are sent from this machine. */
  readonly marks?: FollowMarks;
  /** The last sign of life of each session that a call has followed, by instance and session. */
  readonly lastSigns: Map<string, SignOfLife>;
}

/** A question to the person. */
export interface Form {
  /** Id of the request that it is about. */
  readonly id: string;
  /** The request in a few words, for a status line. */
  readonly about: string;
  readonly message: string;
  readonly fields: Readonly<
    Record<
      string,
      {
        readonly title: string;
        readonly description?: string;
        readonly choices?: readonly string[];
        /** One or more values, a line each. */
        readonly isList?: true;
      }
    >
  >;
  readonly required: readonly string[];
}

export type PersonAnswer =
  | { readonly kind: 'accepted'; readonly fields: Readonly<Record<string, string>> }
  | { readonly kind: 'declined' }
  /** The person closed the form. */
  | { readonly kind: 'dismissed' }
  /** The time was up, or `signal` aborted. */
  | { readonly kind: 'late' }
  /** The client did not ask a person; `reason` describes the client: `it …`. */
  | { readonly kind: 'unavailable'; readonly reason: string };

/** Never rejects. */
export type AskPerson = (
  question: Form,
  limit: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<PersonAnswer>;

export interface Call {
  /** Stops the operation, which then changes nothing more; a turn that was started goes on. */
  readonly signal: AbortSignal;
  /** By the monotonic clock. */
  readonly deadlineMs: number;
  /** New text of the turn. */
  readonly onProgress: (text: string) => void;
  /** Absent if the client cannot ask the person. */
  readonly askPerson?: AskPerson;
  /** The client can show several questions at once; otherwise it gets one form after the other. */
  readonly asksAtOnce?: boolean;
  /** Called as an agent's current activity changes. */
  readonly onActivity?: ((instance: string, doing: string) => void) | undefined;
  /** Called before a message or an answer is sent, with the data that `resume` needs. If it rejects, nothing is sent. */
  readonly onBegun?: ((begun: Begun) => Promise<void>) | undefined;
  /** Default for a message's request id: repeating the call with the same one sends nothing twice. */
  readonly requestId?: string | undefined;
}

/** An instance that has just answered, and its API, over any endpoint of its process. Requests that change something reject with `CallOver` once the call is over. */
export interface Connected extends Reached {
  readonly api: OpencodeClient;
  /** The endpoint in use now. */
  readonly endpoint: () => Endpoint;
}

export function createRuntime(
  fleet: Fleet,
  clock: Clock,
  options: Pick<Runtime, 'approvals' | 'journal' | 'marks'> & { readonly words?: ReaderWords },
): Runtime {
  return { fleet, clock, lock: new SessionLock(clock), lastSigns: new Map(), words: TOOL_WORDS, ...options };
}

export type CallSpan = Pick<Call, 'signal' | 'deadlineMs'>;

/** When a call stops changing anything: at the end of following, so that the result can still be returned. */
export function limitOf(call: CallSpan): CallLimit {
  return { signal: call.signal, deadlineMs: followUntil(call) };
}

/** Resolves a name and probes the instance again. */
export async function connect(runtime: Runtime, query: string, call: CallSpan): Promise<Connected> {
  await runtime.fleet.ready();
  return await connectTo(runtime, runtime.fleet.resolve(query), call);
}

export async function connectTo(runtime: Runtime, instance: Instance, call: CallSpan): Promise<Connected> {
  const limit = limitOf(call);
  const guarded = ({ connection, ...reached }: Reached): Reached => ({
    ...reached,
    connection: { ...connection, beforeChange: () => checkOpen(limit, runtime.clock) },
  });
  const reached = guarded(await runtime.fleet.reach(instance, call.signal));
  let now = reached;
  const api = createClient(endpointApiOf(now), async (failed) => {
    try {
      now = guarded(await runtime.fleet.reachAnother(now, failed, call.signal));
      return endpointApiOf(now);
    } catch (error) {
      if (error instanceof UnreachableError) return undefined;
      throw error;
    }
  });
  return { ...reached, api, endpoint: () => now.connection.endpoint };
}

function endpointApiOf({ endpointId, connection, dialect }: Reached): EndpointApi {
  return { key: endpointId, api: createApi(dialect, connection) };
}

import { TOOL_WORDS, type ReaderWords } from '../model/advice.ts';
import type { Clock } from '../base/clock.ts';
import { type Fleet, type Reached, UnreachableError } from '../fleet/fleet.ts';
import type { Instance } from '../model/instance.ts';
import type { Endpoint } from '../model/candidate.ts';
import { createApi } from '../opencode/dialects/dialects.ts';
import { type OpencodeClient, createClient, type EndpointApi } from '../opencode/client.ts';
import type { Heard } from '../turns/outcome.ts';
import { type CallLimit, checkOpen } from '../turns/call-limit.ts';
import { SessionLock } from '../turns/session-lock.ts';
import type { Approvals } from './respond/approval.ts';
import { followUntil } from './send/following.ts';
import type { FollowMarks } from './send/follow-marks.ts';
import type { RequestJournal } from './send/request-journal.ts';
import type { Begun } from './send/resume.ts';

/** What every operation works with. */
export interface Runtime {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly lock: SessionLock;
  readonly approvals: Approvals;
  readonly journal: RequestJournal;
  /** Of whoever reads the answers. */
  readonly words: ReaderWords;
  /** Absent where nobody is notified on this machine. */
  readonly marks?: FollowMarks;
  /** The last sign of life of each session that a call has followed, by instance and session. */
  readonly heard: Map<string, Heard>;
}

/** What the person is asked. */
export interface Form {
  /** Of the request that it is about. */
  readonly id: string;
  /** That request in a few words, for a line of status. */
  readonly about: string;
  readonly message: string;
  /** A flat form; every field is a string. */
  readonly fields: Readonly<
    Record<
      string,
      {
        readonly title: string;
        readonly description?: string;
        readonly choices?: readonly string[];
        /** One or more, on a line each. */
        readonly isList?: true;
      }
    >
  >;
  readonly required: readonly string[];
}

/** What came of asking the person. */
export type PersonAnswer =
  | { readonly kind: 'accepted'; readonly fields: Readonly<Record<string, string>> }
  /** A no. */
  | { readonly kind: 'declined' }
  /** They closed the form. */
  | { readonly kind: 'dismissed' }
  /** Nothing came before the time was up or `signal` aborted. */
  | { readonly kind: 'late' }
  /** The answer is not from a person. `reason` describes the client: `it …`. */
  | { readonly kind: 'unavailable'; readonly reason: string };

/** Never rejects. */
export type AskPerson = (
  question: Form,
  limit: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<PersonAnswer>;

/** One call as its caller sees it. */
export interface Call {
  /** Stops the operation, which changes nothing from then on; a turn that was started goes on. */
  readonly signal: AbortSignal;
  /** When a blocking operation must have returned, by the monotonic clock. */
  readonly deadlineMs: number;
  /** New text of the turn. */
  readonly onProgress: (text: string) => void;
  /** Absent where the client cannot ask the person. */
  readonly askPerson?: AskPerson;
  /** The client shows any number of questions, in whichever order the person takes them. Else it gets one form after the other. */
  readonly asksAtOnce?: boolean;
  /** What an agent does now, in a few words; called as it changes. */
  readonly onActivity?: ((instance: string, doing: string) => void) | undefined;
  /** Called before a message is sent, or an answer given, with what finds it again. Where it rejects, nothing is sent. */
  readonly onBegun?: ((begun: Begun) => Promise<void>) | undefined;
  /** The request id of a message whose caller named none: repeating the call with it sends nothing twice. */
  readonly requestId?: string | undefined;
}

/**
 * An instance that answered just now and the calls to it, by whatever way leads to its process. Whatever changes something
 * there rejects with `CallOver` instead once the call that connected is over.
 */
export interface Connected extends Reached {
  readonly api: OpencodeClient;
  /** The way by which the calls go now. */
  readonly endpoint: () => Endpoint;
}

export function createRuntime(
  fleet: Fleet,
  clock: Clock,
  options: Pick<Runtime, 'approvals' | 'journal' | 'marks'> & { readonly words?: ReaderWords },
): Runtime {
  return { fleet, clock, lock: new SessionLock(clock), heard: new Map(), words: TOOL_WORDS, ...options };
}

/** What a connection needs to know of the call that it is for. */
export type CallSpan = Pick<Call, 'signal' | 'deadlineMs'>;

/** From when on a call changes nothing any more: as its following ends, so that the answer which says so still gets out. */
export function limitOf(call: CallSpan): CallLimit {
  return { signal: call.signal, deadlineMs: followUntil(call) };
}

/** Finds the instance that a person means and looks at it again. */
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

import type { Clock } from '../base/clock.ts';
import type { ModelName, OpencodeApi, Prompt } from '../opencode/api.ts';
import { firstId, isAscending, successor } from '../opencode/ids.ts';
import type { OpencodeClient } from '../opencode/client.ts';
import type { SessionStatus } from '../opencode/schema.ts';
import { retryingLine } from '../opencode/waiting.ts';
import { unlessAborted } from '../base/unless-aborted.ts';
import { CallOver, checkOpen, isOver } from './call-limit.ts';
import { deliver, type Post } from './delivery.ts';
import { EventFeed } from './event-feed.ts';
import { Follower, type FollowRequest } from './follower.ts';
import type { TurnOutcome, TurnResult } from './outcome.ts';
import { lastTurnOf } from './turn-messages.ts';
import { listWaiting, stillWaits } from './waiting.ts';

export interface TurnRequest extends FollowRequest {
  readonly text: string;
  /** Must exist on the instance: it accepts a message for an unknown agent and never answers. */
  readonly agent?: string | undefined;
  readonly model?: ModelName | undefined;
  /** If the session works: send nothing (`fail`, the default), or send once it is idle. */
  readonly whenBusy?: 'fail' | 'queue' | undefined;
  /** The name of another process that works on this session: processes of one home share sessions, but not status. */
  readonly findOtherProcess?: () => Promise<string | undefined>;
  /** Called right before this call first sends the message. If it rejects, or the call is then over, nothing is sent. */
  readonly beforeSend?: ((prompt: Prompt) => Promise<void>) | undefined;
}

export interface TurnDeps {
  readonly api: OpencodeClient;
  readonly clock: Clock;
}

/** How long another sender's unanswered message counts as a turn that starts: opencode reports busy up to a second late. */
const STARTING_MS = 2_000;
const STARTING_POLL_MS = 200;
/** Polling interval while a message waits for a busy session. */
const QUEUE_POLL_MS = 1_000;

/** Attempts to begin a turn, each over another endpoint, as long as nothing at all was sent. */
const MAX_BEGINNINGS = 3;

/**
 * Sends one message and follows its turn. The event stream is opened before the message is sent, so that a fast turn is not missed; the
 * result is what opencode stores. If nothing at all was sent, begins again over another endpoint. A message that may have been sent never
 * goes over another endpoint.
 * @throws {RequestError | CallOver} only before anything was sent
 */
export async function runTurn(request: TurnRequest, deps: TurnDeps): Promise<TurnResult> {
  for (let left = MAX_BEGINNINGS - 1; ; left -= 1) {
    const result = await withFeed(request, deps, (feed) => beginTurn(request, deps, feed, left > 0));
    if (result !== 'unsent') return result;
  }
}

/**
 * Continues with a message that an earlier call composed and may have sent. Follows it if the session has it; otherwise sends the
 * identical one, or a new one if the session has gone on without it.
 * @throws {RequestError | CallOver} only before anything was sent by this call
 */
export async function resumeTurn(prompt: Prompt, request: TurnRequest, deps: TurnDeps): Promise<TurnResult> {
  const { messageId, sessionId } = prompt;
  const [stored, { messages }] = await Promise.all([
    deps.api.message(sessionId, messageId),
    deps.api.messages(sessionId, { limit: 1 }),
  ]);
  const newest = messages.at(-1)?.info.id;
  // OpenCode 2 shows a prompt only once it takes it up, and takes the same one only once.
  const isPast = newest !== undefined && newest > messageId;
  if (stored === undefined && isPast && !deps.api.isIdempotent) return await runTurn(request, deps);
  return await withFeed(request, deps, async (feed) => {
    if (stored !== undefined) return await new Follower(request, { ...deps, feed, messageId }).follow();
    const pinned = deps.api.pinned();
    checkOpen(request, deps.clock);
    await request.beforeSend?.(prompt);
    const sent = await sendAndFollow(prompt, request, deps, { feed, pinned, mayLeave: false });
    return sent === 'unsent' ? notTaken(messageId, 'no endpoint leads to the instance') : sent;
  });
}

/** Follows a message that this or another process has sent; undefined if the session does not have it. @throws {RequestError} */
export async function followSent(
  messageId: string,
  request: FollowRequest,
  deps: TurnDeps,
): Promise<TurnResult | undefined> {
  return await withFeed(request, deps, async (feed) => {
    const stored = await deps.api.message(request.session.id, messageId);
    return stored && (await new Follower(request, { ...deps, feed, messageId }).follow());
  });
}

/**
 * Follows what a session does now; earlier text is not reported again. Runs `act` while the stream is open.
 * @throws {RequestError} before `act`, or whatever `act` throws
 */
export async function joinTurn(
  request: FollowRequest,
  deps: TurnDeps,
  act: () => Promise<void> = () => Promise.resolve(),
): Promise<TurnResult> {
  return await withFeed(request, deps, async (feed) => {
    const last = await lastTurnOf(deps.api, request.session);
    if (last === undefined) {
      await act();
      return { outcome: { kind: 'completed' }, text: '', textPending: false };
    }
    const follower = new Follower(request, { ...deps, feed, messageId: last.messageId });
    follower.skipPast(last.messages);
    await act();
    return await follower.follow();
  });
}

async function withFeed<T>(
  { session }: FollowRequest,
  { api, clock }: TurnDeps,
  work: (feed: EventFeed) => Promise<T>,
): Promise<T> {
  const feed = await EventFeed.open(() => api.events(session.directory), clock);
  try {
    return await work(feed);
  } finally {
    feed.close();
  }
}

async function beginTurn(
  request: TurnRequest,
  deps: TurnDeps,
  feed: EventFeed,
  mayLeave: boolean,
): Promise<TurnResult | 'unsent'> {
  const pinned = deps.api.pinned();
  // A cancelled call must not wait for a hanging instance while it holds the session.
  const idle = await unlessAborted(whenFree(request, deps), request.signal).catch((error: unknown) => {
    checkOpen(request, deps.clock);
    throw error;
  });
  if (!idle.free) return { outcome: idle.outcome, text: '', textPending: false };
  // The stream may now be another endpoint's or another process's: check again from the beginning.
  if (feed.breaks > 0 && mayLeave) return 'unsent';
  const prompt = composePrompt(request, deps.api, idle.newestId);
  checkOpen(request, deps.clock);
  await request.beforeSend?.(prompt);
  return await sendAndFollow(prompt, request, deps, { feed, pinned, mayLeave });
}

/** The endpoint of a message, which is its event stream's. */
interface Sending {
  readonly feed: EventFeed;
  readonly pinned: OpencodeApi;
  /** Whether another endpoint may be used if nothing was sent. */
  readonly mayLeave: boolean;
}

async function sendAndFollow(
  prompt: Prompt,
  request: TurnRequest,
  deps: TurnDeps,
  { feed, pinned, mayLeave }: Sending,
): Promise<TurnResult | 'unsent'> {
  const { api, clock } = deps;
  const { messageId } = prompt;
  const post: Post = {
    // Over the stream's endpoint, because another one may lead to a process that was started since. OpenCode 2 runs a repeated prompt once.
    prompt: (one) => (api.isIdempotent ? api : pinned).prompt(one),
    message: (sessionId, id) => api.message(sessionId, id),
    sameProcess: () => feed.hasStream && feed.breaks === 0,
    wasInterrupted: () => feed.interrupted.has(prompt.sessionId),
    isIdempotent: api.isIdempotent,
  };
  const leave = async (): Promise<boolean> => mayLeave && (api.pinned() !== pinned || (await api.leave()));
  const delivery = await deliver(prompt, { ...post, leave }, clock, request);
  if (delivery.kind === 'unsent' && mayLeave) return 'unsent';
  if (delivery.kind === 'unsent') return notTaken(messageId, delivery.reason);
  if (delivery.kind !== 'accepted') return { outcome: delivery, messageId, text: '', textPending: false };
  const resend = async (): Promise<TurnOutcome | undefined> => {
    // Sending again would wake a session that somebody has interrupted.
    if (post.wasInterrupted()) return { kind: 'aborted' };
    const again = await deliver(prompt, post, clock, request).catch(ignoreIfOver);
    if (again === undefined || again.kind === 'accepted') return undefined;
    return again.kind === 'unsent' ? { ...again, kind: 'refused' } : again;
  };
  return await new Follower(request, { ...deps, feed, messageId, resend }).follow();
}

/** Once the call is over, an accepted message is followed but not sent again. */
function ignoreIfOver(error: unknown): undefined {
  if (!(error instanceof CallOver)) throw error;
}

function notTaken(messageId: string, reason: string): TurnResult {
  return { outcome: { kind: 'refused', reason }, messageId, text: '', textPending: false };
}

function composePrompt(
  { session, text, agent, model }: TurnRequest,
  { isIdempotent }: Pick<OpencodeApi, 'isIdempotent'>,
  newestId: string | undefined,
): Prompt {
  // OpenCode 2 does not order by ids, and accepts any.
  const isFirst = newestId === undefined || (isIdempotent && !isAscending(newestId));
  const messageId = isFirst ? firstId(session.time.created, 'msg') : successor(newestId, 'msg');
  return {
    sessionId: session.id,
    messageId,
    partId: successor(messageId, 'prt'),
    text,
    ...(agent !== undefined && { agent }),
    ...(model !== undefined && { model }),
  };
}

type Idle =
  | { readonly free: true; readonly newestId: string | undefined }
  | { readonly free: false; readonly outcome: TurnOutcome };

/** As `newestWhenIdle`; with `queue`, waits until the session is free or waits for a reply, or the call is over. */
async function whenFree(request: TurnRequest, deps: TurnDeps): Promise<Idle> {
  const { session, signal, deadlineMs, whenBusy } = request;
  for (;;) {
    const idle = await newestWhenIdle(request, deps);
    if (idle.free || whenBusy !== 'queue' || idle.outcome.kind !== 'busy') return idle;
    const waiting = await listWaiting(deps.api, session.directory);
    const own = waiting.filter(({ request: { sessionID } }) => sessionID === session.id);
    // The session stays busy until somebody answers.
    if ((await Promise.all(own.map((one) => stillWaits(deps.api, one)))).includes(true)) return idle;
    await deps.clock.sleep(Math.min(QUEUE_POLL_MS, Math.max(0, deadlineMs - deps.clock.monotonic())), signal);
    if (isOver(request, deps.clock)) return idle;
  }
}

/** The id of the newest message if nothing runs in the session. opencode would answer a prompt to a busy session together with the running one. */
async function newestWhenIdle(request: TurnRequest, { api, clock }: TurnDeps): Promise<Idle> {
  const { session, signal, findOtherProcess } = request;
  const until = clock.monotonic() + STARTING_MS;
  for (;;) {
    const [statuses, page] = await Promise.all([
      api.statuses(session.directory),
      api.messages(session.id, { limit: 1 }),
    ]);
    const status = statuses.get(session.id);
    if (status !== undefined && status.type !== 'idle') {
      return { free: false, outcome: { kind: 'busy', reason: describeStatus(status) } };
    }
    const newest = page.messages.at(-1)?.info;
    const unfinished =
      newest?.role === 'assistant' && newest.time.completed === undefined && newest.error === undefined;
    const elsewhere = unfinished || newest?.role === 'user' ? await findOtherProcess?.() : undefined;
    if (elsewhere !== undefined) return { free: false, outcome: { kind: 'busy', reason: elsewhere } };
    // A user's message without an answer has just been accepted, or was given up long ago.
    if (newest?.role !== 'user' || clock.monotonic() >= until) return { free: true, newestId: newest?.id };
    await clock.sleep(STARTING_POLL_MS, signal);
    checkOpen(request, clock);
  }
}

function describeStatus(status: SessionStatus): string {
  return status.type === 'retry' ? `it is retrying, ${retryingLine(status)}` : 'it is busy';
}

import type { Clock } from '../clock.ts';
import type { ModelName, OpencodeApi, Prompt } from '../opencode/api.ts';
import { firstId, successor } from '../opencode/ids.ts';
import type { SessionStatus } from '../opencode/schema.ts';
import { type Delivery, deliver } from './delivery.ts';
import { EventFeed } from './event-feed.ts';
import { Follower, type FollowRequest } from './follower.ts';
import type { TurnOutcome, TurnResult } from './outcome.ts';
import { type Reroute, Route } from './route.ts';
import { listWaiting } from './waiting.ts';

export interface TurnRequest extends FollowRequest {
  readonly text: string;
  /** Names that the instance knows: it takes an unknown agent's message and never answers it. */
  readonly agent?: string | undefined;
  readonly model?: ModelName | undefined;
  /** Where the session works: nothing is sent, or the message is sent once it is idle. Default: `fail`. */
  readonly whenBusy?: 'fail' | 'queue' | undefined;
  /** Names the other process that works on this session, if one does: processes of one home share sessions, not status. */
  readonly findOwner?: () => Promise<string | undefined>;
  /** Called with the message right before it is sent for the first time. Where it rejects, nothing is sent. */
  readonly beforeSend?: ((prompt: Prompt) => Promise<void>) | undefined;
}

export interface TurnDeps {
  readonly api: OpencodeApi;
  readonly clock: Clock;
  /** Another way to the same process, and never to another, once this one is broken. */
  readonly reroute?: Reroute;
}

/** An unanswered message of somebody else counts as starting for this long: busy is announced up to a second late. */
const STARTING_MS = 2_000;
const STARTING_POLL_MS = 200;
/** How often a busy session is looked at in whose queue a message stands, beside every sign that it may have ended. */
const QUEUE_POLL_MS = 1_000;

/**
 * Sends one message and follows its turn. The event stream stands before the message is
 * sent, so that a fast turn is not missed; what is told in the end is what is stored.
 * @throws {RequestError} only before anything was sent
 */
export async function runTurn(request: TurnRequest, deps: TurnDeps): Promise<TurnResult> {
  return await withFeed(request, deps, async (route, feed) => {
    const idle = await whenFree(request, deps);
    if (!idle.free) return { outcome: idle.outcome, text: '', textPending: false };
    const prompt = composePrompt(request, idle.newestId);
    await request.beforeSend?.(prompt);
    return await sendAndFollow(prompt, request, deps, route, feed);
  });
}

/**
 * Goes on with a message that an earlier call composed and may have sent: follows it where the session has it, sends the identical one
 * where not, and a new one only where the session has gone on without it.
 */
export async function resumeTurn(prompt: Prompt, request: TurnRequest, deps: TurnDeps): Promise<TurnResult> {
  const { messageId, sessionId } = prompt;
  const [stored, { messages }] = await Promise.all([
    deps.api.message(sessionId, messageId),
    deps.api.messages(sessionId, { limit: 1 }),
  ]);
  const newest = messages.at(-1)?.info.id;
  if (stored === undefined && newest !== undefined && newest > messageId) return await runTurn(request, deps);
  return await withFeed(request, deps, (route, feed) =>
    stored === undefined
      ? sendAndFollow(prompt, request, deps, route, feed)
      : new Follower(request, { route, feed, clock: deps.clock, messageId }).follow(),
  );
}

/**
 * Follows what a session does now. What was said before is not told again. `act` is done while the stream stands.
 * @throws {RequestError} before `act`, or what `act` throws
 */
export async function joinTurn(
  request: FollowRequest,
  deps: TurnDeps,
  act: () => Promise<void> = () => Promise.resolve(),
): Promise<TurnResult> {
  return await withFeed(request, deps, async (route, feed) => {
    const { messages } = await deps.api.messages(request.session.id, { limit: 1 });
    const newest = messages.at(-1)?.info;
    if (newest === undefined) return { outcome: { kind: 'completed' }, text: '', textPending: false };
    const messageId = newest.role === 'user' ? newest.id : newest.parentID;
    const follower = new Follower(request, { route, feed, clock: deps.clock, messageId });
    await follower.skipPast();
    await act();
    return await follower.follow();
  });
}

async function withFeed(
  { session }: FollowRequest,
  { api, clock, reroute }: TurnDeps,
  work: (route: Route, feed: EventFeed) => Promise<TurnResult>,
): Promise<TurnResult> {
  const route = new Route(api, reroute);
  let isFirst = true;
  const feed = await EventFeed.open(() => route.events(session.directory, isFirst), clock);
  isFirst = false;
  try {
    return await work(route, feed);
  } finally {
    feed.close();
  }
}

async function sendAndFollow(
  prompt: Prompt,
  request: TurnRequest,
  { clock }: TurnDeps,
  route: Route,
  feed: EventFeed,
): Promise<TurnResult> {
  const { messageId } = prompt;
  const send = (sameProcess: () => boolean): Promise<Delivery> =>
    deliver(prompt, route, sameProcess, clock, request.signal);
  const { breaks } = feed;
  const delivery = await send(() => feed.breaks === breaks);
  if (delivery.kind !== 'accepted') return { outcome: delivery, messageId, text: '', textPending: false };
  const resend = async (sameProcess: () => boolean): Promise<TurnOutcome | undefined> => {
    const again = await send(sameProcess);
    return again.kind === 'accepted' ? undefined : again;
  };
  return await new Follower(request, { route, feed, clock, messageId, resend }).follow();
}

function composePrompt({ session, text, agent, model }: TurnRequest, newestId: string | undefined): Prompt {
  const messageId = newestId === undefined ? firstId(session.time.created, 'msg') : successor(newestId, 'msg');
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

/** As `newestWhenIdle`; in a queue only once it is free, the deadline has come, or it waits for somebody. */
async function whenFree(request: TurnRequest, deps: TurnDeps): Promise<Idle> {
  const { session, signal, deadlineMs, whenBusy } = request;
  for (;;) {
    const idle = await newestWhenIdle(request, deps);
    if (idle.free || whenBusy !== 'queue' || idle.outcome.kind !== 'busy') return idle;
    const waiting = await listWaiting(deps.api, session.directory);
    // Nobody would end the queue.
    if (waiting.some(({ request: { sessionID } }) => sessionID === session.id)) return idle;
    await deps.clock.sleep(Math.min(QUEUE_POLL_MS, Math.max(0, deadlineMs - deps.clock.now())), signal);
    if (signal.aborted || deps.clock.now() >= deadlineMs) return idle;
  }
}

/** The session's newest message id once nothing runs in it. Prompts to a busy session would be answered together. */
async function newestWhenIdle({ session, signal, findOwner }: TurnRequest, { api, clock }: TurnDeps): Promise<Idle> {
  const until = clock.now() + STARTING_MS;
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
    const owner = unfinished || newest?.role === 'user' ? await findOwner?.() : undefined;
    if (owner !== undefined) return { free: false, outcome: { kind: 'busy', reason: owner } };
    // A user's message without an answer: just accepted and about to start, or given up long ago.
    if (newest?.role !== 'user' || clock.now() >= until) return { free: true, newestId: newest?.id };
    await clock.sleep(STARTING_POLL_MS, signal);
    if (signal.aborted) return { free: false, outcome: { kind: 'cancelled' } };
  }
}

function describeStatus(status: SessionStatus): string {
  return status.type === 'retry' ? `retrying, attempt ${status.attempt}: ${status.message}` : 'busy';
}

import type { Clock } from '../clock.ts';
import type { OpencodeApi, Prompt } from '../opencode/api.ts';
import type { ServerEvent } from '../opencode/events.ts';
import { firstId, successor } from '../opencode/ids.ts';
import type { RoutedApi } from '../opencode/routed-api.ts';
import { type Message, type Session, type SessionStatus, sessionStatusSchema } from '../opencode/schema.ts';
import { RequestError } from '../opencode/transport.ts';
import { deliver, type Post } from './delivery.ts';
import { EventFeed } from './event-feed.ts';
import { listPending, type PendingRequest, requestIn, SessionFamily } from './pending.ts';
import { Transcript } from './transcript.ts';
import { messagesOfTurn } from './turn-messages.ts';

/** How a turn stands when following it ends. */
export type TurnOutcome =
  | { readonly kind: 'completed' }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'aborted' }
  /** Stopped until somebody answers. */
  | { readonly kind: 'waiting'; readonly pending: PendingRequest }
  /** The deadline came first; it still runs. */
  | { readonly kind: 'running'; readonly retrying?: { readonly attempt: number; readonly message: string } }
  /** The caller stopped following; it still runs. */
  | { readonly kind: 'cancelled' }
  /** It ended without being completed: its process was restarted or lost it. */
  | { readonly kind: 'interrupted'; readonly reason: string }
  /** Nothing was started: the session works on something else. */
  | { readonly kind: 'busy'; readonly reason: string }
  /** opencode did not take the message. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** Whether the message arrived, or what became of it, cannot be told. */
  | { readonly kind: 'unknown'; readonly reason: string };

export interface TurnResult {
  readonly outcome: TurnOutcome;
  /** Undefined where nothing was sent. */
  readonly messageId?: string;
  /** What the assistant said in this turn, as stored. */
  readonly text: string;
  /** A part is still streaming and its text is not known yet. */
  readonly textPending: boolean;
}

export interface TurnRequest {
  readonly session: Session;
  readonly text: string;
  /** When following ends, ms since the epoch of the clock. */
  readonly deadlineMs: number;
  /** Stops following, not the run. */
  readonly signal: AbortSignal;
  /** New text, in order, each character once. */
  readonly onText: (text: string) => void;
  /** The assistant has begun to answer: from now on the status says busy. */
  readonly onStarted?: () => void;
  /** Names the other process that works on this session, if one does: processes of one home share sessions, not status. */
  readonly findOwner?: () => Promise<string | undefined>;
}

export interface TurnDeps {
  readonly api: RoutedApi;
  readonly clock: Clock;
}

/** A cold instance on a loaded machine began after 9 s; past this an accepted message without an assistant is sent once more. */
const START_WINDOW_MS = 20_000;
/** An unanswered message of somebody else counts as starting for this long: busy is announced up to a second late. */
const STARTING_MS = 2_000;
const STARTING_POLL_MS = 200;
/** With no event of ours for this long the store is asked: an end may have been missed. */
const QUIET_MS = 5_000;
/** opencode sends idle before the completed message on errors and aborts; then the store is asked often, for a while. */
const SETTLING_POLL_MS = 200;
const SETTLING_LIMIT_MS = 3_000;

/** Times that a turn is begun: once by each way that one has, and none of them took anything. */
const MAX_BEGINNINGS = 3;

/**
 * Sends one message and follows its turn. The event stream stands before the message is
 * sent, so that a fast turn is not missed; what is told in the end is what is stored.
 * Where nothing at all was sent it is begun anew, by another way; what may have been sent is never sent by another.
 * @throws {RequestError} only before anything was sent
 */
export async function runTurn(request: TurnRequest, deps: TurnDeps): Promise<TurnResult> {
  for (let left = MAX_BEGINNINGS - 1; ; left -= 1) {
    const result = await beginTurn(request, deps, left > 0);
    if (result !== 'unsent') return result;
  }
}

async function beginTurn(request: TurnRequest, deps: TurnDeps, mayLeave: boolean): Promise<TurnResult | 'unsent'> {
  const { api, clock } = deps;
  const { session, signal } = request;
  const feed = await EventFeed.open(() => api.events(session.directory), clock);
  try {
    const pinned = api.pinned();
    const idle = await newestWhenIdle(request, deps);
    if (!idle.free) return { outcome: idle.outcome, text: '', textPending: false };
    // The stream is by another way by now, or the process another one: what was looked at may not be so any more.
    if (feed.breaks > 0 && mayLeave) return 'unsent';
    const prompt = composePrompt(session, idle.newestId, request.text);
    const post: Post = {
      // By the way of the stream: what was found since may lead to what was started since.
      prompt: (one) => pinned.prompt(one),
      message: (sessionId, messageId) => api.message(sessionId, messageId),
      sameProcess: () => feed.breaks === 0,
    };
    const leave = async (): Promise<boolean> => mayLeave && (api.pinned() !== pinned || (await api.leave()));
    const delivery = await deliver(prompt, { ...post, leave }, clock, signal);
    if (delivery.kind === 'unsent' && mayLeave && !signal.aborted) return 'unsent';
    if (delivery.kind !== 'accepted') {
      const outcome = delivery.kind === 'unsent' ? ({ ...delivery, kind: 'refused' } as const) : delivery;
      return { outcome, messageId: prompt.messageId, text: '', textPending: false };
    }
    return await new Follower(request, api, clock, feed, prompt, post).follow();
  } finally {
    feed.close();
  }
}

function composePrompt(session: Session, newestId: string | undefined, text: string): Prompt {
  const messageId = newestId === undefined ? firstId(session.time.created, 'msg') : successor(newestId, 'msg');
  return { sessionId: session.id, messageId, partId: successor(messageId, 'prt'), text };
}

type Idle =
  | { readonly free: true; readonly newestId: string | undefined }
  | { readonly free: false; readonly outcome: TurnOutcome };

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

/** Follows one accepted prompt to its end. */
class Follower {
  readonly #request: TurnRequest;
  readonly #api: OpencodeApi;
  readonly #clock: Clock;
  readonly #feed: EventFeed;
  readonly #prompt: Prompt;
  readonly #post: Post;
  readonly #transcript: Transcript;
  readonly #family: SessionFamily;
  readonly #breaksAtStart: number;
  #started = false;
  #resent = false;
  #acceptedAtMs: number;
  #status: SessionStatus | undefined;
  /** Since when the session has been idle without a completed message. */
  #idleSinceMs: number | undefined;
  #nextCheckMs: number;

  constructor(request: TurnRequest, api: OpencodeApi, clock: Clock, feed: EventFeed, prompt: Prompt, post: Post) {
    this.#request = request;
    this.#api = api;
    this.#post = post;
    this.#clock = clock;
    this.#feed = feed;
    this.#prompt = prompt;
    this.#transcript = new Transcript(prompt.sessionId, prompt.messageId);
    this.#family = new SessionFamily(prompt.sessionId);
    this.#breaksAtStart = feed.breaks;
    this.#acceptedAtMs = this.#clock.now();
    this.#nextCheckMs = this.#acceptedAtMs + QUIET_MS;
  }

  async follow(): Promise<TurnResult> {
    const { deadlineMs, signal } = this.#request;
    for (;;) {
      const now = this.#clock.now();
      if (signal.aborted) return this.#result({ kind: 'cancelled' });
      if (now >= deadlineMs) return await this.#atDeadline();
      const item = await this.#feed.take(Math.min(deadlineMs, this.#nextCheckMs) - now, signal);
      let outcome: TurnOutcome | undefined;
      if (item === undefined) {
        if (this.#clock.now() >= this.#nextCheckMs) outcome = await this.#check();
      } else if (item.kind === 'event') {
        outcome = await this.#onEvent(item.event);
      } else if (item.kind === 'gap') {
        this.#transcript.gap();
        outcome = await this.#check();
      } else {
        return this.#result({ kind: 'unknown', reason: `the instance cannot be reached any more: ${item.reason}` });
      }
      if (outcome !== undefined) return this.#result(outcome);
    }
  }

  async #onEvent(event: ServerEvent): Promise<TurnOutcome | undefined> {
    this.#family.apply(event);
    this.#emit(this.#transcript.apply(event));
    if (this.#transcript.assistants.length > 0) this.#markStarted();
    const pending = requestIn(event);
    if (pending !== undefined && (await this.#family.includes(pending.request.sessionID, this.#api))) {
      return { kind: 'waiting', pending };
    }
    if (event.properties['sessionID'] !== this.#prompt.sessionId) return undefined;
    this.#nextCheckMs = this.#clock.now() + QUIET_MS;
    switch (event.type) {
      case 'session.status': {
        const status = sessionStatusSchema.safeParse(event.properties['status']);
        if (status.success) this.#status = status.data;
        return this.#status?.type === 'idle' ? await this.#check() : undefined;
      }
      case 'session.idle':
        return await this.#check();
      case 'session.deleted':
        return { kind: 'failed', reason: 'the session was deleted' };
      case 'message.updated':
        return this.#idleSinceMs === undefined ? undefined : await this.#check();
      default:
        return undefined;
    }
  }

  /** Asks the store and the status how the turn stands. A question that is not answered is asked again later. */
  async #check(): Promise<TurnOutcome | undefined> {
    const { session } = this.#request;
    this.#nextCheckMs = this.#clock.now() + QUIET_MS;
    let messages: readonly Message[];
    let busy: boolean;
    try {
      // The status first: what is idle by then has its text in what is read next.
      const statuses = await this.#api.statuses(session.directory);
      this.#status = statuses.get(session.id) ?? { type: 'idle' };
      busy = this.#status.type !== 'idle';
      messages = await messagesOfTurn(this.#api, this.#prompt.sessionId, this.#prompt.messageId);
    } catch (error) {
      if (error instanceof RequestError && error.status === 404) {
        return { kind: 'unknown', reason: 'what answers there now does not have this session' };
      }
      if (error instanceof RequestError) return undefined;
      throw error;
    }
    this.#emit(this.#transcript.reconcile(messages));
    if (this.#transcript.assistants.length > 0) this.#markStarted();
    if (busy) {
      this.#idleSinceMs = undefined;
      return await this.#pendingOfTurn();
    }
    if (this.#transcript.concluded) return this.#conclusion();
    return await this.#idleUnconcluded();
  }

  /** Idle, and the turn's last message is not complete: about to be, not started yet, or never to be. */
  async #idleUnconcluded(): Promise<TurnOutcome | undefined> {
    const now = this.#clock.now();
    this.#idleSinceMs ??= now;
    this.#nextCheckMs = now + SETTLING_POLL_MS;
    const sameProcess = this.#feed.breaks === this.#breaksAtStart;
    if (this.#transcript.assistants.length > 0) {
      if (now - this.#idleSinceMs < SETTLING_LIMIT_MS) return undefined;
      const last = this.#transcript.assistants.at(-1);
      // A turn may end on a tool call: after a bare reject of its permission.
      if (last?.time.completed !== undefined) return { kind: 'completed' };
      return { kind: 'interrupted', reason: 'it stopped in the middle; the instance was restarted or lost it' };
    }
    if (!sameProcess && now - this.#idleSinceMs >= SETTLING_LIMIT_MS) {
      return { kind: 'interrupted', reason: 'the instance was restarted before it began to answer' };
    }
    // A cold instance stores an accepted message up to 3 s later: until then it is neither here nor answered.
    if (now - this.#acceptedAtMs < START_WINDOW_MS) return undefined;
    if (this.#resent || !sameProcess) {
      return { kind: 'interrupted', reason: 'the instance took the message and did not begin to answer it' };
    }
    return await this.#resend();
  }

  async #resend(): Promise<TurnOutcome | undefined> {
    this.#resent = true;
    this.#acceptedAtMs = this.#clock.now();
    const delivery = await deliver(this.#prompt, this.#post, this.#clock, this.#request.signal);
    if (delivery.kind === 'accepted') return undefined;
    return delivery.kind === 'unsent' ? { ...delivery, kind: 'unknown' } : delivery;
  }

  #conclusion(): TurnOutcome {
    const last = this.#transcript.assistants.at(-1);
    const error = last?.error;
    if (error === undefined) {
      // An abort between two attempts of a failing model leaves neither an error nor a reason to finish (1.18.33).
      return last?.finish === undefined && this.#transcript.text === '' ? { kind: 'aborted' } : { kind: 'completed' };
    }
    if (error.name === 'MessageAbortedError') return { kind: 'aborted' };
    return { kind: 'failed', reason: [error.name, error.data?.message].filter(Boolean).join(': ') };
  }

  /** A request that was announced in a gap of the stream. One left by an earlier abort names a message that is not ours. */
  async #pendingOfTurn(): Promise<TurnOutcome | undefined> {
    const ours = new Set(this.#transcript.assistants.map(({ id }) => id));
    for (const pending of await listPending(this.#api, this.#request.session.directory).catch(() => [])) {
      const { sessionID, tool } = pending.request;
      const inTurn = this.#family.isSubAgent(sessionID)
        ? await this.#family.includes(sessionID, this.#api)
        : tool === undefined || ours.has(tool.messageID);
      if (inTurn) return { kind: 'waiting', pending };
    }
    return undefined;
  }

  async #atDeadline(): Promise<TurnResult> {
    const outcome = await this.#check();
    if (outcome !== undefined) return this.#result(outcome);
    const retry = this.#status?.type === 'retry' ? this.#status : undefined;
    return this.#result({
      kind: 'running',
      ...(retry === undefined ? {} : { retrying: { attempt: retry.attempt, message: retry.message } }),
    });
  }

  #markStarted(): void {
    if (this.#started) return;
    this.#started = true;
    this.#request.onStarted?.();
  }

  #emit(text: string): void {
    if (text !== '') this.#request.onText(text);
  }

  #result(outcome: TurnOutcome): TurnResult {
    const { text, textPending } = this.#transcript;
    return { outcome, messageId: this.#prompt.messageId, text, textPending };
  }
}

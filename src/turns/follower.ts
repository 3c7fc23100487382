import { type Clock, wallTime } from '../base/clock.ts';
import type { OpencodeApi } from '../opencode/api.ts';
import type { ServerEvent } from '../opencode/events.ts';
import {
  type Message,
  messageErrorSchema,
  type Session,
  type SessionStatus,
  sessionStatusSchema,
} from '../opencode/schema.ts';
import { RequestError } from '../http/exchange.ts';
import type { EventFeed } from './event-feed.ts';
import { doingIn } from './doing.ts';
import { endOf, saidError } from './last-turn.ts';
import type { SignOfLife, TurnOutcome, TurnResult, WaitingOutcome } from './outcome.ts';
import { Transcript } from './transcript.ts';
import { messagesOfTurn } from './turn-messages.ts';
import { listWaiting, requestIn, SessionFamily, stillWaits } from './waiting.ts';

export interface FollowRequest {
  readonly session: Session;
  /** When following ends, by the monotonic clock. */
  readonly deadlineMs: number;
  /** Stops following, not the run. */
  readonly signal: AbortSignal;
  /** New text, in order, each character once. */
  readonly onText: (text: string) => void;
  /** The agent's current activity, in a few words. */
  readonly onDoing?: ((doing: string) => void) | undefined;
  /** Called when the answer has begun: the status says busy from now on. */
  readonly onStarted?: () => void;
  /** Called when the turn stops at a request; returns how following ends, or undefined if the request was settled. Never rejects. */
  readonly onWaiting?: ((outcome: WaitingOutcome) => Promise<TurnOutcome | undefined>) | undefined;
  /** The session's last sign of life in an earlier call. */
  readonly lastSign?: SignOfLife | undefined;
}

export interface FollowerDeps {
  readonly api: OpencodeApi;
  readonly clock: Clock;
  readonly feed: EventFeed;
  /** The person's message whose answer is followed. */
  readonly messageId: string;
  /** Sends the message again if it was accepted but not begun; absent if this call did not send it. */
  readonly resend?: () => Promise<TurnOutcome | undefined>;
}

/** An accepted message without an answer is sent again after this; a cold instance on a loaded machine began after 9 s. */
const START_WINDOW_MS = 20_000;
/** The store is read after this long without an event of the turn: its end may have been missed. */
const QUIET_MS = 5_000;
/** On errors and aborts opencode reports idle before the message is complete: the store is then read often, for a while. */
const SETTLING_POLL_MS = 200;
const SETTLING_LIMIT_MS = 3_000;
/** A turn silent for this long is reported as stalled; models think and commands run for a minute or so. */
export const STALL_MS = 120_000;

/** Errors to read from the store, not from the event: an aborted message has its own, and a context that is too long may yet be compacted. */
export const READ_FROM_STORE: ReadonlySet<string> = new Set(['MessageAbortedError', 'ContextOverflowError']);

const DELETED: TurnOutcome = { kind: 'failed', reason: 'the session was deleted' };

/** Follows one turn to its end. */
export class Follower {
  readonly #request: FollowRequest;
  readonly #deps: FollowerDeps;
  readonly #transcript: Transcript;
  readonly #family: SessionFamily;
  readonly #breaksAtStart: number;
  #started = false;
  #resent = false;
  #acceptedAtMs: number;
  #lastSignAtMs: number;
  #stage = '';
  #status: SessionStatus | undefined;
  /** Whether its last status other than idle was a retry. */
  #wasRetrying = false;
  /** opencode's last error in this session. */
  #error: string | undefined;
  /** Since when the session has been idle while the turn's last message is incomplete. */
  #idleSinceMs: number | undefined;
  #nextCheckMs: number;
  /** Time of the last idle event. */
  #endedAtMs: number | undefined;

  constructor(request: FollowRequest, deps: FollowerDeps) {
    this.#request = request;
    this.#deps = deps;
    this.#transcript = new Transcript(request.session.id, deps.messageId);
    this.#family = new SessionFamily(request.session.id);
    this.#breaksAtStart = deps.feed.breaks;
    this.#acceptedAtMs = deps.clock.monotonic();
    this.#lastSignAtMs = this.#acceptedAtMs;
    // A message sent earlier is looked up at once.
    this.#nextCheckMs = this.#acceptedAtMs + (deps.resend === undefined ? 0 : QUIET_MS);
  }

  /** Marks the text so far as reported: `onText` and the result get only later text. */
  skipPast(messages: readonly Message[]): void {
    const { lastSign } = this.#request;
    this.#transcript.reconcile(messages);
    this.#transcript.mark();
    this.#stage = stageOf(messages);
    // Nothing has changed since the earlier call, so its silence continues.
    if (lastSign?.stage === this.#stage) this.#lastSignAtMs = lastSign.atMs;
  }

  async follow(): Promise<TurnResult> {
    const { deadlineMs, signal } = this.#request;
    const { clock, feed } = this.#deps;
    for (;;) {
      const now = clock.monotonic();
      if (signal.aborted) return this.#result({ kind: 'cancelled' });
      if (now >= deadlineMs) return await this.#atDeadline();
      const item = await feed.take(Math.min(deadlineMs, this.#nextCheckMs) - now, signal);
      let outcome: TurnOutcome | undefined;
      if (item === undefined) {
        if (clock.monotonic() >= this.#nextCheckMs) outcome = await this.#check();
      } else if (item.kind === 'event') {
        outcome = await this.#onEvent(item.event);
      } else {
        this.#transcript.gap();
        if (item.kind === 'lost' && !(await this.#answers()))
          return this.#result({ kind: 'unknown', reason: `the instance cannot be reached any more: ${item.reason}` });
        outcome = await this.#check();
      }
      if (outcome?.kind === 'waiting' && this.#request.onWaiting !== undefined) {
        this.#markStarted();
        if (!signal.aborted) outcome = await this.#request.onWaiting(outcome);
      }
      if (outcome !== undefined) return this.#result(outcome);
    }
  }

  /** Whether something still answers, perhaps another process, without the stream. */
  async #answers(): Promise<boolean> {
    const { api } = this.#deps;
    return await api.statuses(this.#request.session.directory).then(
      () => true,
      () => false,
    );
  }

  async #onEvent(event: ServerEvent): Promise<TurnOutcome | undefined> {
    this.#family.apply(event);
    this.#emit(this.#transcript.apply(event));
    if (this.#transcript.hasBegun) this.#markStarted();
    if (this.#transcript.isUnplaced) return await this.#check();
    const { sessionID } = event.properties;
    if (typeof sessionID === 'string' && this.#family.has(sessionID)) this.#lastSignAtMs = this.#deps.clock.monotonic();
    const { onDoing } = this.#request;
    const doing = onDoing === undefined || sessionID !== this.#request.session.id ? undefined : doingIn(event);
    if (doing !== undefined) onDoing?.(doing);
    const waiting = requestIn(event);
    if (waiting !== undefined && (await this.#family.includes(waiting.request.sessionID, this.#deps.api)))
      return this.#waitingFor(waiting);
    if (sessionID !== this.#request.session.id) return undefined;
    this.#nextCheckMs = this.#deps.clock.monotonic() + QUIET_MS;
    switch (event.type) {
      case 'session.status': {
        const status = sessionStatusSchema.safeParse(event.properties['status']);
        if (status.success) this.#noteStatus(status.data);
        return this.#status?.type === 'idle' ? await this.#check() : undefined;
      }
      case 'session.idle':
        this.#endedAtMs = this.#deps.clock.monotonic();
        return await this.#check();
      case 'session.error': {
        const error = messageErrorSchema.safeParse(event.properties['error']);
        if (error.success && !READ_FROM_STORE.has(error.data.name)) this.#error = saidError(error.data);
        return this.#error === undefined ? undefined : await this.#check();
      }
      case 'prompt.taken':
        // OpenCode 2 works on it now, even before the model's first word.
        if (event.properties['messageID'] === this.#deps.messageId) this.#markStarted();
        return undefined;
      case 'session.deleted':
        return DELETED;
      case 'message.updated':
        return this.#idleSinceMs === undefined && !this.#transcript.concluded ? undefined : await this.#check();
      default:
        return undefined;
    }
  }

  /** Reads status and store for the state of the turn. A failed request is repeated at the next check. */
  async #check(): Promise<TurnOutcome | undefined> {
    this.#nextCheckMs = this.#deps.clock.monotonic() + QUIET_MS;
    let isBusy = true;
    try {
      // Read the status first: if it is idle, the store read after it has the turn's whole text.
      isBusy = await this.#readStatus();
      await this.#readStore();
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (error.status === 404) return this.#sessionMissing();
      // If the events show the end, it counts even if the store cannot be read.
      if (isBusy || !this.#transcript.concluded) return undefined;
    }
    if (this.#transcript.hasBegun) this.#markStarted();
    // While the session is busy, the turn may be compacted and go on, unless it is a later turn that keeps it busy.
    if (isBusy && !this.#transcript.isPassed) return await this.#stillBusy();
    if (this.#wasAbortedInRetry) return { kind: 'aborted' };
    return this.#transcript.concluded ? endOf(this.#transcript) : await this.#idleUnconcluded();
  }

  /** Whether the session works. */
  async #readStatus(): Promise<boolean> {
    const { id, directory } = this.#request.session;
    const status = (await this.#deps.api.statuses(directory)).get(id) ?? { type: 'idle' };
    this.#noteStatus(status);
    return status.type !== 'idle';
  }

  async #readStore(): Promise<void> {
    const { api, messageId } = this.#deps;
    const isKnown = (id: string): boolean => this.#transcript.hasStored(id);
    const messages = await messagesOfTurn(api, this.#request.session.id, messageId, isKnown);
    this.#emit(this.#transcript.reconcile(messages));
    this.#stage = stageOf(messages);
  }

  #sessionMissing(): TurnOutcome {
    if (this.#deps.feed.hasStream && this.#isSameProcess) return DELETED;
    return { kind: 'unknown', reason: 'the process that now answers there does not have this session' };
  }

  async #stillBusy(): Promise<TurnOutcome | undefined> {
    // OpenCode 2's status lags a moment behind its event.
    const now = this.#deps.clock.monotonic();
    if (this.#endedAtMs !== undefined && now - this.#endedAtMs < SETTLING_LIMIT_MS)
      this.#nextCheckMs = now + SETTLING_POLL_MS;
    return await this.#waitingOfTurn();
  }

  /** An abort between two attempts of a failing model leaves neither an error nor a reason to finish (1.18.33). */
  get #wasAbortedInRetry(): boolean {
    const last = this.#transcript.assistants.at(-1);
    const hasNoEnd = last?.time.completed !== undefined && last.error === undefined && last.finish === undefined;
    return this.#wasRetrying && hasNoEnd;
  }

  /** The session is idle, but the turn is not concluded: it may conclude in a moment, may not have begun, or may never conclude. */
  async #idleUnconcluded(): Promise<TurnOutcome | undefined> {
    const now = this.#deps.clock.monotonic();
    this.#idleSinceMs ??= now;
    this.#nextCheckMs = now + SETTLING_POLL_MS;
    const hasSettled = now - this.#idleSinceMs >= SETTLING_LIMIT_MS;
    const interrupted = (reason: string): TurnOutcome => ({ kind: 'interrupted', reason });
    // The store does not show why a turn stopped or never began, such as an unknown model or a plugin that threw.
    if (this.#error !== undefined) return { kind: 'failed', reason: this.#error };
    if (this.#transcript.hasBegun) return hasSettled ? endOf(this.#transcript) : undefined;
    if (!this.#isSameProcess)
      return hasSettled ? interrupted('the instance was restarted before it began to answer') : undefined;
    // OpenCode 2 stores a message when it takes it up; the preview reports no interruption before the model's first word.
    if (this.#deps.api.isIdempotent && this.#transcript.hasStored(this.#deps.messageId))
      return hasSettled
        ? interrupted('it ended before the first word of the model; somebody interrupted it')
        : undefined;
    // A cold instance stores an accepted message up to 3 s later.
    if (now - this.#acceptedAtMs < START_WINDOW_MS) return undefined;
    if (this.#resent || this.#deps.resend === undefined)
      return interrupted('the instance took the message and did not begin to answer it');
    this.#resent = true;
    this.#acceptedAtMs = now;
    return await this.#deps.resend();
  }

  /** A request announced in a gap of the stream or before it. */
  async #waitingOfTurn(): Promise<TurnOutcome | undefined> {
    const { api } = this.#deps;
    for (const waiting of await listWaiting(api, this.#request.session.directory).catch(() => [])) {
      const isOurs = await this.#family.includes(waiting.request.sessionID, api);
      if (isOurs && (await stillWaits(api, waiting))) return this.#waitingFor(waiting);
    }
    return undefined;
  }

  /** Whether the event stream has been open since following began. */
  get #isSameProcess(): boolean {
    return this.#deps.feed.breaks === this.#breaksAtStart;
  }

  #waitingFor(waiting: WaitingOutcome['waiting']): TurnOutcome {
    return { kind: 'waiting', waiting, ofSubAgent: this.#family.isSubAgent(waiting.request.sessionID) };
  }

  async #atDeadline(): Promise<TurnResult> {
    const outcome = await this.#check();
    if (outcome !== undefined) return this.#result(outcome);
    const retry = this.#status?.type === 'retry' ? this.#status : undefined;
    const stalled = this.#deps.clock.monotonic() - this.#lastSignAtMs >= STALL_MS;
    return this.#result({
      kind: 'running',
      ...(retry !== undefined && { retrying: { attempt: retry.attempt, message: retry.message } }),
      ...(stalled && { stalledSinceMs: wallTime(this.#deps.clock, this.#lastSignAtMs) }),
    });
  }

  #noteStatus(status: SessionStatus): void {
    this.#status = status;
    if (status.type === 'idle') return;
    this.#wasRetrying = status.type === 'retry';
    // Time that the session was idle before the turn began does not count.
    this.#idleSinceMs = undefined;
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
    const { newText: text, text: wholeText, textPending } = this.#transcript;
    const stalled = outcome.kind === 'running' && outcome.stalledSinceMs !== undefined;
    const lastSign = { atMs: this.#lastSignAtMs, stage: this.#stage, stalled };
    return { outcome, messageId: this.#deps.messageId, text, wholeText, textPending, lastSign };
  }
}

/** How far a turn has come by the store, which does not show running text. */
export function stageOf(messages: readonly Message[]): string {
  const last = messages.at(-1);
  return JSON.stringify([last?.info.id, last?.parts.map(({ id, state, time }) => [id, state?.status, time?.end])]);
}

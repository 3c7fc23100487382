import type { Clock } from '../../base/clock.ts';
import { singleLine } from '../../base/plain-text.ts';
import { reasonOf } from '../../base/errors.ts';
import { type Asked, listAsked } from '../../operations/respond/asked.ts';
import { requestLine } from '../../operations/respond/waiting.ts';
import type { Connected } from '../../operations/runtime.ts';
import { sessionState, type SessionState } from '../../operations/sessions/session-state.ts';
import type { WatchedSession } from '../../model/watched.ts';
import type { ServerEvent } from '../../opencode/events.ts';
import { type Message, type Session, sessionSchema } from '../../opencode/schema.ts';
import { EventFeed } from '../../turns/event-feed.ts';
import { undoneIn } from '../../turns/turn-messages.ts';
import { askView } from './ask-view.ts';
import type { PlaceFound } from './find-session.ts';
import type { LineStream } from '../line-stream.ts';
import { LiveMessages } from './live-messages.ts';
import { messageView } from './message-view.ts';

/** Messages per page. */
const PAGE = 50;
/** How many newest messages an event may have changed. */
const LATEST = 4;
/** Pieces of text within this time are sent together. */
const PACE_MS = 50;
/** The least time between two requests for the session's state, however many events come. */
const LOOK_MS = 300;
/** The state is asked for at least this often: events may be lost, and some changes send none. */
const QUIET_LOOK_MS = 10_000;
/** The same without an event stream, which a proxy may not pass. */
const BLIND_LOOK_MS = 2_000;

export interface SessionStreamDeps {
  readonly stream: LineStream;
  readonly clock: Clock;
  /** Aborts when the caller leaves or is cut off. */
  readonly signal: AbortSignal;
  readonly canDrive: boolean;
}

/** Sends one page of older messages. */
export async function sendOlder(
  stream: LineStream,
  { connected: { api }, session }: PlaceFound,
  before: string,
): Promise<void> {
  const undone = await undoneIn(api, session);
  const { messages, olderCursor } = await api.messages(session.id, { limit: PAGE, before });
  const standing = messages.filter(({ info }) => !undone.has(info.id));
  await stream.send([messagesLine(standing.map(messageView), olderCursor)]);
}

/** Sends a session's messages, state and requests, and every change. Resolves when the session cannot be followed any more, or `signal` aborts. */
export async function streamSession(place: PlaceFound, deps: SessionStreamDeps): Promise<void> {
  const { api } = place.connected;
  const { directory } = place.session;
  // Subscribed before the store is read, so that no change in between is missed.
  const feed = await EventFeed.open(() => api.events(directory, deps.signal), deps.clock);
  try {
    await new SessionFollower(place, feed, deps).follow();
  } finally {
    feed.close();
  }
}

class SessionFollower {
  readonly #connected: Connected;
  #session: Session;
  readonly #feed: EventFeed;
  readonly #deps: SessionStreamDeps;
  readonly #live: LiveMessages;
  /** The requests and the state as last sent, as JSON, by the kind of the line. */
  readonly #sent = new Map<string, string>();
  #state: StateShown | undefined;
  #title: string | undefined;
  /** What may have changed: the state, the newest messages too, or all of them. */
  #due: 'nothing' | 'state' | 'newest' | 'all' = 'nothing';
  #lookedMs = 0;
  #isLost = false;

  constructor({ connected, session }: PlaceFound, feed: EventFeed, deps: SessionStreamDeps) {
    this.#connected = connected;
    this.#session = session;
    this.#feed = feed;
    this.#deps = deps;
    this.#live = new LiveMessages(session.id);
  }

  async follow(): Promise<void> {
    const { stream, clock, signal } = this.#deps;
    const { messages, older } = await this.#load();
    this.#live.replace(messages);
    const news = await this.#news();
    await stream.send([...this.#retitled(), messagesLine(this.#live.views, older), ...news]);
    this.#lookedMs = clock.monotonic();
    while (!signal.aborted && !this.#isLost) {
      let item = await this.#feed.take(this.#pauseMs(), signal);
      while (item !== undefined) {
        if (item.kind === 'event') this.#apply(item.event);
        else this.#due = 'all';
        if (item.kind === 'lost') await this.#end(`The instance cannot be followed any more: ${item.reason}.`);
        item = await this.#feed.take(0);
      }
      if (signal.aborted || this.#isLost) return;
      if (this.#pauseMs() <= 0) await this.#look();
      await stream.send([...this.#retitled(), ...this.#live.take()]);
      await clock.sleep(PACE_MS, signal);
    }
  }

  #pauseMs(): number {
    const every = this.#due !== 'nothing' ? LOOK_MS : this.#feed.hasStream ? QUIET_LOOK_MS : BLIND_LOOK_MS;
    return Math.max(0, this.#lookedMs + every - this.#deps.clock.monotonic());
  }

  #apply(event: ServerEvent): void {
    const { type, properties } = event;
    if (this.#live.apply(event)) {
      if (type === 'message.updated') this.#want('state');
      return;
    }
    // For any session: requests of sub-agents are shown here too.
    if (/^(?:permission|question)\./.test(type)) this.#want('state');
    const { sessionID = (properties['info'] as { readonly id?: unknown } | undefined)?.id } = properties;
    if (sessionID !== this.#session.id) return;
    if (type === 'session.deleted') void this.#end('This session was deleted.');
    else if (type === 'session.updated') this.#update(properties['info']);
    else if (/^(?:session\.compacted|message\.(?:part\.)?removed)$/.test(type)) this.#want('all');
    else if (/^(?:session|prompt|message)\./.test(type)) this.#want(type === 'session.status' ? 'state' : 'newest');
  }

  /** `session.updated` comes with each turn; only an undo and a new title matter. */
  #update(info: unknown): void {
    const session = sessionSchema.safeParse(info).data;
    if (session === undefined) return;
    const { revert } = this.#session;
    if (JSON.stringify(session.revert ?? null) !== JSON.stringify(revert ?? null)) this.#want('all');
    this.#session = session;
  }

  /** The head of the session if its title changed. */
  #retitled(): readonly object[] {
    const { title, directory } = this.#session;
    if (title === this.#title) return [];
    this.#title = title;
    const shown = { title: singleLine(title, 300), directory: singleLine(directory, 1_000) };
    return [{ kind: 'session', ...shown, state: this.#state?.state, canDrive: this.#deps.canDrive }];
  }

  #want(what: 'state' | 'newest' | 'all'): void {
    const order = ['nothing', 'state', 'newest', 'all'];
    if (order.indexOf(what) > order.indexOf(this.#due)) this.#due = what;
  }

  /** Asks for the current state. A failure is tried again; the event stream ends when the instance is gone. */
  async #look(): Promise<void> {
    const { stream } = this.#deps;
    const { api } = this.#connected;
    const due = this.#due === 'nothing' && !this.#feed.hasStream ? 'newest' : this.#due;
    this.#due = 'nothing';
    this.#lookedMs = this.#deps.clock.monotonic();
    try {
      if (due === 'all') await this.#lookAtAll();
      if (due === 'newest') this.#live.reconcile((await api.messages(this.#session.id, { limit: LATEST })).messages);
      const news = await this.#news();
      await stream.send([...this.#live.take(), ...news]);
    } catch (error) {
      if (this.#deps.signal.aborted) return;
      this.#want(due === 'nothing' ? 'state' : due);
      await stream.send([{ kind: 'error', text: reasonOf(error) }]);
    }
  }

  async #lookAtAll(): Promise<void> {
    this.#session = (await this.#connected.api.session(this.#session.id)) ?? this.#session;
    const { messages, older } = await this.#load();
    const known = this.#live.views.map(({ id }) => id);
    const ids = new Set(messages.map(({ info }) => info.id));
    // Only a removed message needs the whole list sent again.
    const isTakenBack = known.slice(known.indexOf(messages[0]?.info.id ?? '')).some((id) => !ids.has(id));
    if (!isTakenBack) this.#live.reconcile(messages);
    else {
      this.#live.replace(messages);
      await this.#deps.stream.send([messagesLine(this.#live.views, older)]);
    }
  }

  /** The newest page, without undone messages. */
  async #load(): Promise<{ readonly messages: readonly Message[]; readonly older: string | undefined }> {
    const { api } = this.#connected;
    const undone = await undoneIn(api, this.#session);
    const { messages, olderCursor } = await api.messages(this.#session.id, { limit: PAGE });
    return { messages: messages.filter(({ info }) => !undone.has(info.id)), older: olderCursor };
  }

  /** The requests and the state, each if it changed. */
  async #news(): Promise<readonly object[]> {
    const { api } = this.#connected;
    const { id, directory } = this.#session;
    const statuses = await api.statuses(directory);
    const { asked } = await listAsked(this.#connected, [directory], statuses);
    const own = asked.filter((one) => one.session.id === id || one.waiting.request.sessionID === id);
    const { newest } = this.#live;
    const waiting = own.map(({ waiting: one, ofSubAgent }) => requestLine(one, ofSubAgent));
    this.#state = stateShown(
      sessionState(statuses.get(id), { newest, waiting, nowMs: this.#deps.clock.now() }),
      newest,
      own,
    );
    return [...this.#unlessSent('asks', { asks: own.map(askView) }), ...this.#unlessSent('state', this.#state)];
  }

  #unlessSent(kind: 'asks' | 'state', content: object): readonly object[] {
    const text = JSON.stringify(content);
    if (this.#sent.get(kind) === text) return [];
    this.#sent.set(kind, text);
    return [{ kind, ...content }];
  }

  async #end(text: string): Promise<void> {
    this.#isLost = true;
    await this.#deps.stream.send([{ kind: 'error', text: singleLine(text, 500) }]);
  }
}

interface StateShown {
  readonly state: WatchedSession['state'];
  readonly reason?: string;
}

function stateShown({ state, reason }: SessionState, newest: Message | undefined, asked: readonly Asked[]): StateShown {
  if (asked.length > 0) return { state: 'waiting' };
  const why = reason === undefined ? {} : { reason: singleLine(reason, 500) };
  if (state === 'busy' || state === 'retrying' || state === 'interrupted') return { state, ...why };
  if (state !== 'idle') return { state: 'busy', ...why };
  const error = newest?.info.role === 'assistant' ? newest.info.error : undefined;
  if (error === undefined) return { state: 'idle' };
  if (error.name === 'MessageAbortedError') return { state: 'interrupted', reason: 'it was stopped' };
  return { state: 'failed', reason: singleLine(error.data?.message ?? error.name, 500) };
}

function messagesLine(messages: readonly object[], older: string | undefined): object {
  return { kind: 'messages', messages, ...(older !== undefined && { older }) };
}

import { createHash } from 'node:crypto';
import { StreamCleaner } from '../../base/plain-text.ts';
import type { ServerEvent } from '../../opencode/events.ts';
import { type Message, messageInfoSchema, type Part, partSchema } from '../../opencode/schema.ts';
import { MAX_PART_CHARS, messageView, type PageMessage } from './message-view.ts';

/** The newest; older messages are loaded by page. */
const MAX_MESSAGES = 300;

export type MessageLine =
  | { readonly kind: 'message'; readonly message: PageMessage }
  | { readonly kind: 'text'; readonly message: string; readonly part: string; readonly text: string };

interface LivePart {
  part: Part;
  /** Cleans text that comes in pieces. */
  readonly cleaner: StreamCleaner;
}

interface LiveMessage {
  info: Message['info'];
  readonly parts: Map<string, LivePart>;
}

/** Stands for the text of a part before the stream was opened; the store has the whole text once the part has ended. */
const BEGINNING = '… ';

/**
 * One session's messages, from events and from the store, which has a part's text only when the part has ended. `take` gives each change
 * once: as a piece of text if only text was added, otherwise as the whole message.
 */
export class LiveMessages {
  readonly #sessionId: string;
  readonly #messages = new Map<string, LiveMessage>();
  readonly #changed = new Set<string>();
  /** Digests of the messages as last sent. */
  readonly #sent = new Map<string, string>();
  readonly #pieces = new Map<string, { readonly message: string; text: string }>();

  constructor(sessionId: string) {
    this.#sessionId = sessionId;
  }

  get views(): readonly PageMessage[] {
    return [...this.#messages.values()].map((one) => messageView(messageOf(one)));
  }

  get newest(): Message | undefined {
    const last = [...this.#messages.values()].at(-1);
    return last && messageOf(last);
  }

  /** Replaces all messages. The caller sends them. */
  replace(messages: readonly Message[]): void {
    const before = new Map(this.#messages);
    this.#messages.clear();
    for (const message of messages) {
      const known = before.get(message.info.id);
      if (known !== undefined) this.#messages.set(message.info.id, known);
      this.#store(message);
    }
    this.#changed.clear();
    this.#pieces.clear();
    this.#sent.clear();
    for (const [id, one] of this.#messages) this.#isNews(id, one);
  }

  /** Takes over messages from the store. */
  reconcile(messages: readonly Message[]): void {
    for (const message of messages) this.#store(message);
  }

  /** Takes over an event; false if it is not about this session's messages. */
  apply({ type, properties }: ServerEvent): boolean {
    if (type === 'message.part.delta') return this.#delta(properties);
    if (type === 'message.updated') {
      const info = messageInfoSchema.safeParse(properties['info']).data;
      if (info === undefined || this.#isForeign(properties, 'info')) return false;
      const known = this.#message(info);
      known.info = info;
      this.#touch(info.id);
      return true;
    }
    if (type === 'message.part.updated') {
      const part = partSchema.safeParse(properties['part']).data;
      const message = part && this.#messages.get(part.messageID);
      if (part === undefined || message === undefined || this.#isForeign(properties, 'part')) return false;
      if (this.#put(message, part)) this.#touch(part.messageID);
      return true;
    }
    return false;
  }

  /** The changes since the last call. */
  take(): readonly MessageLine[] {
    const pieces = [...this.#pieces]
      .filter(([, { message, text }]) => !this.#changed.has(message) && text !== '')
      .map(([part, { message, text }]) => ({ kind: 'text', message, part, text }) as const);
    const whole = [...this.#messages]
      .filter(([id, one]) => this.#changed.has(id) && this.#isNews(id, one))
      .map(([, one]) => ({ kind: 'message', message: messageView(messageOf(one)) }) as const);
    this.#changed.clear();
    this.#pieces.clear();
    for (const { message } of pieces) {
      const known = this.#messages.get(message);
      if (known !== undefined) this.#isNews(message, known);
    }
    return [...whole, ...pieces];
  }

  #delta({ sessionID, messageID, partID, field, delta }: ServerEvent['properties']): boolean {
    if (sessionID !== this.#sessionId || typeof delta !== 'string' || field !== 'text') return false;
    const id = String(partID);
    const message = this.#messages.get(String(messageID));
    if (message === undefined) return true;
    const isKnown = message.parts.has(id);
    if (!isKnown) this.#put(message, { id, messageID: String(messageID), type: 'text', text: BEGINNING });
    const live = message.parts.get(id);
    if (live === undefined || live.part.time?.end !== undefined) return true;
    const { text = '' } = live.part;
    if (text.length >= MAX_PART_CHARS) return true;
    const piece = live.cleaner.add(delta);
    live.part = { ...live.part, text: text + piece };
    if (!isKnown) this.#touch(message.info.id);
    const before = this.#pieces.get(id);
    if (before === undefined) this.#pieces.set(id, { message: message.info.id, text: piece });
    else before.text += piece;
    return true;
  }

  #store(message: Message): void {
    const known = this.#message(message.info);
    known.info = message.info;
    for (const part of message.parts) this.#put(known, part);
    this.#touch(message.info.id);
  }

  /** Whether it differs from what was last sent (many changes are in parts that are not shown), and marks it as sent. */
  #isNews(id: string, message: LiveMessage): boolean {
    const digest = digestOf(messageView(messageOf(message)));
    if (this.#sent.get(id) === digest) return false;
    this.#sent.set(id, digest);
    return true;
  }

  /** False if the known part has more text: while a part is being written, the store has none of it. */
  #put({ parts }: LiveMessage, part: Part): boolean {
    const known = parts.get(part.id);
    const isBehind =
      known !== undefined &&
      part.time?.end === undefined &&
      part.type !== 'tool' &&
      (part.text ?? '').length <= (known.part.text ?? '').length;
    if (isBehind) return false;
    parts.set(part.id, { part, cleaner: known?.cleaner ?? new StreamCleaner() });
    return true;
  }

  #message(info: Message['info']): LiveMessage {
    const known = this.#messages.get(info.id);
    if (known !== undefined) return known;
    const made = { info, parts: new Map<string, LivePart>() };
    this.#messages.set(info.id, made);
    this.#touch(info.id);
    const [oldest] = this.#messages.keys();
    if (this.#messages.size > MAX_MESSAGES && oldest !== undefined) {
      this.#messages.delete(oldest);
      this.#sent.delete(oldest);
    }
    return made;
  }

  #touch(id: string): void {
    this.#changed.add(id);
  }

  /** The event stream is of a whole directory; the event or the message in it names the session. */
  #isForeign(properties: ServerEvent['properties'], within: string): boolean {
    const inner = properties[within] as { readonly sessionID?: unknown };
    const session = properties['sessionID'] ?? inner.sessionID;
    return session !== undefined && session !== this.#sessionId;
  }
}

function messageOf({ info, parts }: LiveMessage): Message {
  return { info, parts: [...parts.values()].map(({ part }) => part) };
}

function digestOf(message: PageMessage): string {
  return createHash('sha256').update(JSON.stringify(message)).digest('base64');
}

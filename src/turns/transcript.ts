import type { ServerEvent } from '../opencode/events.ts';
import { type AssistantMessage, type Message, messageInfoSchema, type Part, partSchema } from '../opencode/schema.ts';
import { type Outline, outlineOf, type Turn, turnFrom } from './turn-messages.ts';

interface PartText {
  readonly id: string;
  readonly messageId: string;
  /** Undefined until a `message.part.updated` event or the store has it; deltas do not have it. */
  type: string | undefined;
  text: string;
  /** Characters of `text` already returned. */
  shown: number;
  /** Length of `text` at the mark. */
  marked: number;
  ended: boolean;
  /** Deltas may have been missed: its text is unknown until it ends. */
  gapped: boolean;
  /** The store has it whole. */
  stored: boolean;
}

/** Limit of text known only from events: half a million tokens. The rest is read from the store once its part has ended. */
const MAX_UNSTORED_CHARS = 2 * 1024 * 1024;
/** Counted for each part in addition to its text. */
const PART_CHARS = 200;
/** The most that is read from the store: see `MAX_PAGES`. */
const MAX_MESSAGES = 1_000;

/**
 * The text of one turn, from events and the store in any mix. `apply` and `reconcile` return new text, each character once.
 * The store (`GET …/message`) is right for ended parts and empty for running ones: after a gap in the stream, or past the limit for
 * text from events, a running part's text is unknown until it ends; then the rest is returned.
 */
export class Transcript {
  readonly sessionId: string;
  readonly messageId: string;
  /** Outlines of our message and of those after it, unordered. */
  readonly #outlines = new Map<string, Outline>();
  readonly #stored = new Set<string>();
  #turn: Turn = { answers: [], isConcluded: false, together: [], end: 0 };
  #isFollowed = false;
  /** Answers of the turn without summaries. */
  readonly #spoken = new Set<string>();
  readonly #parts = new Map<string, PartText>();
  /** An answer to an unknown message arrived: only the store shows whether it is part of the turn. */
  isUnplaced = false;
  #shownAny = false;
  #lastShownPart: string | undefined;
  #hadGap = false;
  /** Characters of the parts that the store has not confirmed. */
  #unstored = 0;

  constructor(sessionId: string, messageId: string) {
    this.sessionId = sessionId;
    this.messageId = messageId;
  }

  /** Takes one event; returns the text it adds. Events of other sessions and messages add nothing. */
  apply(event: ServerEvent): string {
    const { properties } = event;
    if (event.type === 'message.part.delta') return this.#applyDelta(properties);
    // The stream has all sessions of the directory.
    if (event.type === 'message.updated' && sessionOf(properties) === this.sessionId) {
      const info = messageInfoSchema.safeParse(properties['info']);
      if (info.success && info.data.role === 'assistant') return this.#applyAnswer(info.data);
    }
    if (event.type === 'message.part.updated' && (properties['sessionID'] ?? this.sessionId) === this.sessionId) {
      const part = partSchema.safeParse(properties['part']);
      if (part.success) return this.#applyPart(part.data, 'event');
    }
    return '';
  }

  /** The event stream broke: running parts have text that was missed. */
  gap(): void {
    this.#hadGap = true;
    for (const part of this.#parts.values()) part.gapped ||= !part.ended;
  }

  /** Takes messages from the store, oldest first; returns the text they add. */
  reconcile(messages: readonly Message[]): string {
    for (const message of messages) {
      const { info, parts } = message;
      const known = this.#outlines.get(info.id);
      // The store may lag a moment behind the end event.
      const isBehind = known?.kind === 'answer' && known.info.time.completed !== undefined && !isCompleted(info);
      if (!isBehind) this.#outlines.set(info.id, outlineOf(message));
      // A person's message is stored before its parts.
      if (info.role === 'user' ? parts.length > 0 : info.time.completed !== undefined) this.#stored.add(info.id);
    }
    this.isUnplaced = false;
    let added = this.#arrange();
    for (const { info, parts } of messages) {
      if (this.#spoken.has(info.id)) for (const part of parts) added += this.#applyPart(part, 'store');
    }
    return added;
  }

  /** Whether the store has shown the message complete. */
  hasStored(id: string): boolean {
    return this.#stored.has(id);
  }

  get hasBegun(): boolean {
    return this.#turn.answers.length > 0;
  }

  /** The assistant's messages of this turn, with summaries, oldest first. */
  get assistants(): readonly AssistantMessage[] {
    return this.#turn.answers;
  }

  /** See `Turn.together`. */
  get together(): readonly string[] {
    return this.#turn.together;
  }

  /** opencode takes no further step in this turn. */
  get concluded(): boolean {
    return this.#turn.isConcluded;
  }

  /** It is concluded, and a later turn has begun. */
  get isPassed(): boolean {
    return this.#turn.isConcluded && this.#isFollowed;
  }

  /** All text known so far, a blank line between parts. */
  get text(): string {
    return this.#textFrom(() => 0);
  }

  /** Only text after this is new. */
  mark(): void {
    for (const part of this.#parts.values()) part.marked = part.text.length;
    this.#shownAny = false;
  }

  /** `text` since the mark. */
  get newText(): string {
    return this.#textFrom(({ marked }) => marked);
  }

  /** The text of a running part is unknown after a gap in the stream. */
  get textPending(): boolean {
    return [...this.#parts.values()].some((part) => part.gapped && !part.ended && this.#spoken.has(part.messageId));
  }

  #textFrom(start: (part: PartText) => number): string {
    return [...this.#parts.values()]
      .filter((part) => part.type === 'text' && this.#spoken.has(part.messageId))
      .toSorted((a, b) => compare(a.messageId, b.messageId) || compare(a.id, b.id))
      .map((part) => part.text.slice(start(part)))
      .filter((text) => text !== '')
      .join('\n\n');
  }

  /** An answer to a message that the store has not shown yet is placed at the next reading. */
  #applyAnswer(info: AssistantMessage): string {
    const known = this.#outlines.get(info.id);
    if (known === undefined && this.#outlines.size >= MAX_MESSAGES) return '';
    this.#outlines.set(info.id, { kind: 'answer', info, isEmpty: known?.kind !== 'answer' || known.isEmpty });
    // Only once for each answer: a message that the store does not show then will never appear.
    this.isUnplaced ||= known === undefined && info.parentID !== this.messageId && !this.#outlines.has(info.parentID);
    return this.#arrange();
  }

  /** Determines the messages of the turn; returns the text of new ones. */
  #arrange(): string {
    const ordered = inOrder(this.#outlines);
    const start = ordered.findIndex(({ info }) => info.id === this.messageId);
    // Until the store has shown our message, only answers that name it are known to be the turn's.
    const isAnswer = ({ kind, info }: Outline): boolean => kind === 'answer' && info.parentID === this.messageId;
    const known = start === -1 ? ordered.filter(isAnswer) : ordered;
    this.#turn = turnFrom(known, start);
    this.#isFollowed = this.#turn.end < known.length;
    let added = '';
    for (const { id, summary } of this.#turn.answers) {
      if (summary === true || this.#spoken.has(id)) continue;
      this.#spoken.add(id);
      for (const part of this.#parts.values()) if (part.messageId === id) added += this.#show(part);
    }
    return added;
  }

  #applyDelta(properties: ServerEvent['properties']): string {
    const { sessionID, messageID, partID, field, delta } = properties;
    if (sessionID !== this.sessionId || field !== 'text') return '';
    if (typeof partID !== 'string' || typeof messageID !== 'string' || typeof delta !== 'string') return '';
    const part = this.#part(partID, messageID, this.#hadGap);
    if (part === undefined || part.ended || part.gapped || !this.#makeRoom(part, delta.length)) return '';
    part.text += delta;
    return this.#show(part, delta);
  }

  #applyPart(info: Part, origin: 'event' | 'store'): string {
    if (info.type !== 'text' || info.synthetic === true || info.ignored === true) {
      this.#skip(info);
      return '';
    }
    const ended = info.time?.end !== undefined;
    // The beginning of a part that the store shows as running is unknown.
    const isStored = origin === 'store' && ended;
    const part = this.#part(info.id, info.messageID, origin === 'store' && !ended, isStored);
    if (part === undefined) return '';
    part.type = 'text';
    const text = info.text ?? '';
    if (isStored) this.#confirm(part);
    if (ended || text.length > part.text.length) {
      if (!this.#makeRoom(part, text.length - part.text.length)) return '';
      part.text = text;
      part.gapped = false;
    }
    part.ended ||= ended;
    return this.#show(part);
  }

  /** Undefined without room for another part known only from events. */
  #part(id: string, messageId: string, gapped: boolean, stored = false): PartText | undefined {
    const known = this.#parts.get(id);
    if (known !== undefined) return known;
    const part = { id, messageId, type: undefined, text: '', shown: 0, marked: 0, ended: false, gapped, stored };
    if (!this.#makeRoom(part, PART_CHARS)) return undefined;
    this.#parts.set(id, part);
    return part;
  }

  /** Whether a part may grow by `chars`. If not, its text is unknown until the store has it. */
  #makeRoom(part: PartText, chars: number): boolean {
    if (part.stored) return true;
    if (chars > 0 && this.#unstored + chars > MAX_UNSTORED_CHARS) {
      part.gapped = true;
      this.#hadGap = true;
      return false;
    }
    this.#unstored += chars;
    return true;
  }

  /** Reasoning, and text that is not for the person, is not kept. */
  #skip({ id, messageID, type }: Part): void {
    const part = this.#parts.get(id) ?? (type === 'reasoning' ? this.#part(id, messageID, false) : undefined);
    if (part === undefined) return;
    if (!part.stored) this.#unstored -= part.text.length;
    part.type = 'hidden';
    part.text = '';
    part.ended = true;
  }

  #confirm(part: PartText): void {
    if (!part.stored) this.#unstored -= part.text.length + PART_CHARS;
    part.stored = true;
  }

  /** `latest`: the text just added; returning it avoids a copy of a long text for a few characters. */
  #show(part: PartText, latest = ''): string {
    if (part.type !== 'text' || !this.#spoken.has(part.messageId)) return '';
    const fresh = part.shown + latest.length === part.text.length ? latest : part.text.slice(part.shown);
    if (fresh === '') return '';
    part.shown = part.text.length;
    const separator = this.#shownAny && this.#lastShownPart !== part.id ? '\n\n' : '';
    this.#shownAny = true;
    this.#lastShownPart = part.id;
    return separator + fresh;
  }
}

/** By time. opencode stores a message that was sent twice again later: it counts as no later than its answer. */
function inOrder(outlines: ReadonlyMap<string, Outline>): readonly Outline[] {
  const createdMs = new Map([...outlines].map(([id, { info }]) => [id, info.time.created]));
  for (const { kind, info } of outlines.values()) {
    const parentMs = kind === 'answer' ? createdMs.get(info.parentID) : undefined;
    if (kind === 'answer' && parentMs !== undefined)
      createdMs.set(info.parentID, Math.min(parentMs, info.time.created));
  }
  return [...outlines.values()].toSorted(
    ({ info: { id: one } }, { info: { id: other } }) =>
      (createdMs.get(one) ?? 0) - (createdMs.get(other) ?? 0) || compare(one, other),
  );
}

/** The session of a message event, which may only be in the message itself (1.18.10 to 1.18.33). */
function sessionOf({ sessionID, info }: ServerEvent['properties']): unknown {
  if (sessionID !== undefined || typeof info !== 'object' || info === null) return sessionID;
  return 'sessionID' in info ? info.sessionID : undefined;
}

function isCompleted(info: Message['info']): boolean {
  return info.role === 'assistant' && info.time.completed !== undefined;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

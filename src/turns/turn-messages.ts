import type { OpencodeApi } from '../opencode/api.ts';
import type { AssistantMessage, Message, Session } from '../opencode/schema.ts';

const PAGE = 50;
/** 20 pages of 50: more messages in one turn than that are left unread, oldest first. */
const MAX_PAGES = 20;

/** Between two steps of a turn opencode takes milliseconds; what a person writes meanwhile is answered by the next step. */
const NEXT_STEP_MS = 1_000;

/** Two that send at once see nothing of each other before opencode says that it is busy, which takes up to a second. */
const SAME_MOMENT_MS = 3_000;

/** What a message says of where turns begin and end. */
export type Outline =
  | { readonly kind: 'answer'; readonly info: AssistantMessage; readonly isEmpty: boolean }
  /**
   * `opencode`: it wrote this itself. `compaction`: it is to sum up what was said; where it began that itself the turn
   * goes on afterwards, under a message of its own or, where `repeats`, under the person's message once more.
   */
  | {
      readonly kind: 'person' | 'opencode' | 'compaction';
      readonly info: Exclude<Message['info'], AssistantMessage>;
      readonly auto: boolean;
      readonly repeats: boolean;
    };

export function outlineOf({ info, parts }: Message): Outline {
  if (info.role === 'assistant') return { kind: 'answer', info, isEmpty: parts.length === 0 };
  const compaction = parts.find(({ type }) => type === 'compaction');
  const isOwn = parts.length > 0 && parts.every(({ synthetic, ignored }) => synthetic === true || ignored === true);
  return {
    kind: compaction !== undefined ? 'compaction' : isOwn ? 'opencode' : 'person',
    info,
    auto: compaction?.auto === true,
    repeats: compaction?.overflow === true,
  };
}

/** One turn among the messages of a session. */
export interface Turn {
  /** Oldest first; the last one may be a summary. */
  readonly answers: readonly AssistantMessage[];
  /** opencode takes no further step in it. */
  readonly isConcluded: boolean;
  /** Messages of persons that came at the same moment, so that one answer is to all of them. */
  readonly together: readonly string[];
  /** Where the next message is that is none of it. */
  readonly end: number;
}

/**
 * The turn that the message at `start` begins: all that follows, until it was answered and the next message came. A compaction
 * that opencode began opens it again. A person's message is part of it where it came while the turn still ran.
 *
 * @param outlines oldest first
 */
export function turnFrom(outlines: readonly Outline[], start: number): Turn {
  const answers: AssistantMessage[] = [];
  const startMs = outlines[start]?.info.time.created ?? 0;
  const isSameMoment = ({ kind, info }: Outline): boolean =>
    kind === 'person' && Math.abs(info.time.created - startMs) < SAME_MOMENT_MS;
  const together = outlines.slice(Math.max(0, start - 1), Math.max(0, start)).filter(isSameMoment);
  let isOpen = true;
  let repeats = false;
  let end = start + 1;
  for (; end < outlines.length; end += 1) {
    const next = outlines[end];
    if (next?.kind === 'answer') {
      answers.push(next.info);
      isOpen = next.info.summary === true ? next.info.error === undefined : !concludes(next);
    } else if (next?.kind === 'compaction' && next.auto) {
      isOpen = true;
      ({ repeats } = next);
    } else {
      if (!isOpen || (next?.kind === 'person' && !repeats && !isInTime(next.info, answers.at(-1)))) break;
      if (next?.kind === 'person') repeats = false;
      if (next !== undefined && answers.length === 0 && isSameMoment(next)) together.push(next);
    }
  }
  return { answers, isConcluded: !isOpen, together: together.map(({ info }) => info.id), end };
}

/** opencode takes no further step after this one. */
function concludes({ info: { error, time, finish }, isEmpty }: Extract<Outline, { kind: 'answer' }>): boolean {
  if (error !== undefined) return true;
  if (time.completed === undefined || finish === 'tool-calls' || finish === 'unknown') return false;
  // A command that a person ran has a result and no reason to finish. Without both opencode gave up an attempt, and begins another.
  return finish !== undefined || !isEmpty;
}

/** A step that never completed is followed by none. */
function isInTime({ time }: Message['info'], last: AssistantMessage | undefined): boolean {
  if (last === undefined) return true;
  return last.time.completed !== undefined && time.created <= last.time.completed + NEXT_STEP_MS;
}

/**
 * A session's messages, the newest `MAX_PAGES` pages at most, oldest first, as far back as is needed. Large ones come in
 * smaller pages than they are asked for, and the next page is no larger than what came.
 * @param isEnough asked with what was read so far
 */
async function readBack(
  api: OpencodeApi,
  sessionId: string,
  isEnough: (messages: readonly Message[]) => boolean,
  firstPage = PAGE,
): Promise<readonly Message[]> {
  let messages: readonly Message[] = [];
  let before: string | undefined;
  let limit = firstPage;
  for (let page = 0; page < MAX_PAGES; page++) {
    const next = await api.messages(sessionId, { limit, ...(before === undefined ? {} : { before }) });
    messages = [...next.messages, ...messages];
    before = next.olderCursor;
    if (before === undefined || isEnough(messages)) break;
    limit = next.messages.length < limit ? Math.max(1, next.messages.length) : Math.min(PAGE, 2 * limit);
  }
  return messages;
}

/**
 * The messages that a person has undone: all from one on, which are stored until the next prompt. By the order in which they come, since
 * a prompt of OpenCode 2 that waited in its queue is older than the answer before it. Nothing is asked where nothing was undone.
 */
export async function undoneIn(
  api: OpencodeApi,
  { id, revert }: Pick<Session, 'id' | 'revert'>,
): Promise<ReadonlySet<string>> {
  if (revert == null) return new Set();
  const isFirst = ({ info }: Message): boolean => info.id === revert.messageID;
  const messages = await readBack(api, id, (read) => read.some(isFirst));
  const first = messages.findIndex(isFirst);
  // Of a message that is undone from a part on the rest stands.
  const undone = first === -1 ? [] : messages.slice(revert.partID == null ? first : first + 1);
  return new Set(undone.map(({ info }) => info.id));
}

/** What may have come since the last look: a step or two. */
const LATEST = 4;

/**
 * A session's messages from `messageId` on, oldest first; of a very long turn the newest part.
 * @param isKnown of a message that was read before, and is complete: older ones are not read again
 */
export async function messagesOfTurn(
  api: OpencodeApi,
  sessionId: string,
  messageId: string,
  isKnown: (id: string) => boolean = () => false,
): Promise<readonly Message[]> {
  const isOurs = ({ info }: Message): boolean => info.id === messageId;
  const messages = await readBack(
    api,
    sessionId,
    (read) => read.some((message) => isOurs(message) || isKnown(message.info.id)),
    isKnown(messageId) ? LATEST : PAGE,
  );
  // And the one before, with which it may be answered together.
  return messages.slice(Math.max(0, messages.findIndex(isOurs) - 1));
}

/** The message with which the last turn of a session began that stands, and what came since; undefined where there was none. */
export async function lastTurnOf(
  api: OpencodeApi,
  session: Pick<Session, 'id' | 'revert'>,
): Promise<{ readonly messageId: string; readonly messages: readonly Message[] } | undefined> {
  const undone = await undoneIn(api, session);
  const standing = (all: readonly Message[]): readonly Message[] => all.filter(({ info }) => !undone.has(info.id));
  // The first one found may belong to an older turn.
  const messages = standing(await readBack(api, session.id, (read) => startsOf(standing(read)).length > 1));
  const start = startsOf(messages).at(-1);
  const first = start === undefined ? undefined : messages[start];
  return first && { messageId: first.info.id, messages: messages.slice(Math.max(0, (start ?? 0) - 1)) };
}

/** Where turns begin: with a person's message, or one of opencode's that is answered, unless it is part of the turn before. */
function startsOf(messages: readonly Message[]): readonly number[] {
  const outlines = messages.map(outlineOf);
  const starts: number[] = [];
  for (let at = 0; at < outlines.length;) {
    const kind = outlines[at]?.kind;
    const isStart = kind === 'person' || (kind === 'opencode' && outlines[at + 1]?.kind === 'answer');
    if (isStart) starts.push(at);
    at = isStart ? turnFrom(outlines, at).end : at + 1;
  }
  return starts;
}

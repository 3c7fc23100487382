import type { OpencodeApi } from '../opencode/api.ts';
import type { AssistantMessage, Message, Session } from '../opencode/schema.ts';

const PAGE = 50;
/** 20 pages of 50: the oldest messages of a longer turn stay unread. */
const MAX_PAGES = 20;

/** Steps of a turn follow within milliseconds; the next step answers messages written meanwhile. */
const NEXT_STEP_MS = 1_000;

/** Concurrent senders cannot see each other until opencode reports busy, which takes up to a second. */
const SAME_MOMENT_MS = 3_000;

/** A message as far as it marks where turns begin and end. */
export type Outline =
  | { readonly kind: 'answer'; readonly info: AssistantMessage; readonly isEmpty: boolean }
  /**
   * `opencode`: written by opencode itself. `compaction`: asks for a summary of the session; if opencode began it (`auto`), the turn
   * then goes on under another message of opencode's or, if `repeats`, under a repetition of the person's.
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
  /** opencode takes no further step in this turn. */
  readonly isConcluded: boolean;
  /** Other messages sent at the same moment, which share its answer. */
  readonly together: readonly string[];
  /** Index of the first message after it. */
  readonly end: number;
}

/**
 * The turn that begins with the message at `start`: all that follows, until the first message after its answer. A compaction begun by
 * opencode reopens it. A person's message that came while the turn ran is part of it.
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

function concludes({ info: { error, time, finish }, isEmpty }: Extract<Outline, { kind: 'answer' }>): boolean {
  if (error !== undefined) return true;
  if (time.completed === undefined || finish === 'tool-calls' || finish === 'unknown') return false;
  // A person's own command has parts but no finish reason. Without both, opencode gave up an attempt and begins another.
  return finish !== undefined || !isEmpty;
}

/** Whether a person's message came before the turn's next step. A step that never completed has no next one. */
function isInTime({ time }: Message['info'], last: AssistantMessage | undefined): boolean {
  if (last === undefined) return true;
  return last.time.completed !== undefined && time.created <= last.time.completed + NEXT_STEP_MS;
}

/**
 * A session's messages, oldest first, as far back as needed, `MAX_PAGES` pages at most. A page of large messages comes back smaller
 * than requested; the next request asks for no more than that.
 * @param isEnough whether the messages so far suffice
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
 * The messages that a person has undone: all from one on, which stay stored until the next prompt. By listed order, since a prompt
 * that waited in OpenCode 2's queue is older than the answer before it. Sends no request if nothing was undone.
 */
export async function undoneIn(
  api: OpencodeApi,
  { id, revert }: Pick<Session, 'id' | 'revert'>,
): Promise<ReadonlySet<string>> {
  if (revert == null) return new Set();
  const isFirst = ({ info }: Message): boolean => info.id === revert.messageID;
  const messages = await readBack(api, id, (read) => read.some(isFirst));
  const first = messages.findIndex(isFirst);
  // A message undone from one of its parts on is not undone as a whole.
  const undone = first === -1 ? [] : messages.slice(revert.partID == null ? first : first + 1);
  return new Set(undone.map(({ info }) => info.id));
}

/** Enough for a step or two since the last reading. */
const LATEST = 4;

/**
 * A session's messages from `messageId` on, oldest first; of a very long turn only the newest.
 * @param isKnown whether a message was read before and is complete: older ones are not read again
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
  // With the message before it, which may share its answer.
  return messages.slice(Math.max(0, messages.findIndex(isOurs) - 1));
}

/** The first message of the session's last turn that is not undone, and the messages since; undefined without a turn. */
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

/** Indexes of messages that begin a turn: a person's, or an answered one of opencode's, unless part of the turn before. */
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

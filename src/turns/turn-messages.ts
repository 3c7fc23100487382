import type { OpencodeApi } from '../opencode/api.ts';
import { pagesBack } from '../opencode/pages.ts';
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
  let isOpen = true;
  let repeats = false;
  let end = start + 1;
  for (const next of outlines.slice(start + 1)) {
    if (next.kind === 'answer') {
      answers.push(next.info);
      isOpen = !concludes(next);
    } else if (next.kind === 'compaction' && next.auto) {
      isOpen = true;
      ({ repeats } = next);
    } else if (!isOpen) break;
    else if (next.kind === 'person') {
      if (!repeats && !isInTime(next.info, answers.at(-1))) break;
      repeats = false;
    }
    end += 1;
  }
  return { answers, isConcluded: !isOpen, together: sentTogether(outlines, start, end), end };
}

/** The other messages that were sent at the same moment as the one at `start`, and share its answer. */
function sentTogether(outlines: readonly Outline[], start: number, end: number): readonly string[] {
  const own = outlines[start];
  if (own === undefined) return [];
  const isSameMoment = ({ info }: Outline): boolean =>
    Math.abs(info.time.created - own.info.time.created) < SAME_MOMENT_MS;
  const firstAnswer = outlines.findIndex(({ kind }, index) => index > start && kind === 'answer');
  return outlines
    .slice(Math.max(0, start - 1), firstAnswer === -1 ? end : firstAnswer)
    .filter((one) => one !== own && one.kind === 'person' && isSameMoment(one))
    .map(({ info }) => info.id);
}

function concludes({ info, isEmpty }: Extract<Outline, { kind: 'answer' }>): boolean {
  const { error, time, finish, summary } = info;
  if (error !== undefined) return true;
  if (summary === true || time.completed === undefined || finish === 'tool-calls' || finish === 'unknown') return false;
  // A person's own command has parts but no finish reason. Without both, opencode gave up an attempt and begins another.
  return finish !== undefined || !isEmpty;
}

/** Whether a person's message came before the turn's next step. A step that never completed has no next one. */
function isInTime({ time }: Message['info'], last: AssistantMessage | undefined): boolean {
  if (last === undefined) return true;
  return last.time.completed !== undefined && time.created <= last.time.completed + NEXT_STEP_MS;
}

/**
 * A session's messages, oldest first, as far back as needed, `MAX_PAGES` pages at most.
 * @param isEnough whether the messages so far suffice
 */
async function readBack(
  api: Pick<OpencodeApi, 'messages'>,
  sessionId: string,
  isEnough: (messages: readonly Message[]) => boolean,
  firstSize = PAGE,
): Promise<readonly Message[]> {
  let messages: readonly Message[] = [];
  const pages = pagesBack((query) => api.messages(sessionId, query), { size: PAGE, most: MAX_PAGES, firstSize });
  for await (const page of pages) {
    messages = [...page.messages, ...messages];
    if (isEnough(messages)) break;
  }
  return messages;
}

/**
 * The messages that a person has undone: all from one on, which stay stored until the next prompt. By listed order, since a prompt
 * that waited in OpenCode 2's queue is older than the answer before it. Sends no request if nothing was undone.
 */
export async function undoneIn(
  api: Pick<OpencodeApi, 'messages'>,
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
  api: Pick<OpencodeApi, 'messages'>,
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
  api: Pick<OpencodeApi, 'messages'>,
  session: Pick<Session, 'id' | 'revert'>,
): Promise<{ readonly messageId: string; readonly messages: readonly Message[] } | undefined> {
  const undone = await undoneIn(api, session);
  const withoutUndone = (all: readonly Message[]): readonly Message[] => all.filter(({ info }) => !undone.has(info.id));
  // The first one found may belong to an older turn.
  const messages = withoutUndone(await readBack(api, session.id, (read) => startsOf(withoutUndone(read)).length > 1));
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

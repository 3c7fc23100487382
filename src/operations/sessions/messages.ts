import type { AssistantMessage, Message, Part } from '../../opencode/schema.ts';
import { multiLine, singleLine } from '../../base/plain-text.ts';
import { outlineOf } from '../../turns/turn-messages.ts';
import { cutText, quoteBlock } from '../answer.ts';
import type { MessageRow } from '../shapes.ts';

/** The newest message gets more room than older ones, which are context. */
const NEWEST_CHARS = 3_000;
const OLDER_CHARS = 400;
/** A page of a message that is read by its id. */
export const PAGE_CHARS = 6_000;
const TOOL_CHARS = 120;
const MAX_TOOLS = 10;

/** A person has undone it, and the model no longer sees it. */
export const UNDONE = 'undone';
const SUMMARY = 'summary of what was said before';
/** The model reached its output limit. */
const CUT_SHORT = 'cut at the limit of output';

/** The text of a message as people see it, without what opencode added. */
export function messageText({ parts }: Message): string {
  const texts = parts.filter((part) => part.type === 'text' && !part.synthetic && !part.ignored);
  return multiLine(
    texts
      .map(({ text }) => text ?? '')
      .filter(Boolean)
      .join('\n\n'),
    Number.MAX_SAFE_INTEGER,
  );
}

export interface RowOptions {
  readonly running: boolean;
  /** Message ids. */
  readonly undone: ReadonlySet<string>;
}

/** One message, with the part of its text that fits from `offset`. */
export function messageRow(
  message: Message,
  { running, undone, limit, offset = 0 }: RowOptions & { readonly limit: number; readonly offset?: number },
): MessageRow {
  const { info } = message;
  const error = info.role === 'assistant' ? info.error : undefined;
  const tools = message.parts.filter(({ type }) => type === 'tool').map(describeTool);
  const leftOut = tools.length - MAX_TOOLS;
  return {
    id: info.id,
    role: info.role,
    created: new Date(info.time.created).toISOString(),
    state: undone.has(info.id) ? UNDONE : messageState(message, running),
    ...cutText(messageText(message), limit, offset),
    ...(tools.length > 0 && { tools: leftOut > 0 ? [`${leftOut} earlier`, ...tools.slice(leftOut)] : tools }),
    ...(error !== undefined && {
      error: singleLine([error.name, error.data?.message].filter(Boolean).join(': '), 300),
    }),
  };
}

/** A page of messages, oldest first. */
export function messageRows(messages: readonly Message[], { running, undone }: RowOptions): MessageRow[] {
  // Messages that others wrote meanwhile follow the running answer.
  const latest = messages.findLastIndex(({ info }) => info.role === 'assistant');
  return messages.map((message, index) => {
    const limit = index === messages.length - 1 ? NEWEST_CHARS : OLDER_CHARS;
    return messageRow(message, { running: running && index === latest, undone, limit });
  });
}

function messageState(message: Message, running: boolean): string {
  const { info } = message;
  if (info.role === 'user') {
    const { kind } = outlineOf(message);
    return kind === 'opencode' ? 'written by opencode' : kind === 'compaction' ? kind : 'complete';
  }
  if (info.error !== undefined) return endState(info);
  if (info.time.completed !== undefined) return info.summary === true ? SUMMARY : endState(info);
  // opencode stores a part's text only when the part ends.
  return running ? 'streaming' : 'interrupted';
}

/** The state of an answer that has ended. */
export function endState({ error, finish }: Pick<AssistantMessage, 'error' | 'finish'>): string {
  if (error !== undefined) return error.name === 'MessageAbortedError' ? 'aborted' : 'failed';
  return finish === 'length' ? CUT_SHORT : 'complete';
}

function describeTool({ tool, state }: Part): string {
  const title = state?.title ?? (typeof state?.input?.['command'] === 'string' ? state.input['command'] : '');
  const failure = state?.status === 'error' && state.error !== undefined ? `: ${state.error}` : '';
  return singleLine(`${tool ?? 'tool'} ${title} (${state?.status ?? 'unknown'}${failure})`, TOOL_CHARS);
}

export function renderMessage(row: MessageRow): string {
  const lines = [`${row.role} ${row.id} ${row.created}${row.state === 'complete' ? '' : ` (${row.state})`}`];
  if (row.text !== '') lines.push(quoteBlock(row.text));
  if (row.cut !== undefined) lines.push(renderCut(row.id, row.cut));
  if (row.tools !== undefined) lines.push(`tools: ${row.tools.map((tool) => JSON.stringify(tool)).join(', ')}`);
  if (row.error !== undefined) lines.push(`error: ${JSON.stringify(row.error)}`);
  if (row.state === 'streaming')
    lines.push('(its last part is still streaming; the text of that part appears when it ends)');
  return lines.join('\n');
}

export function renderCut(messageId: string, cut: { readonly next_offset: number; readonly total: number }): string {
  return `(not all: ${cut.total} characters; to go on: read with message_id ${messageId} and offset ${cut.next_offset})`;
}

import { multiLine, singleLine } from '../../base/plain-text.ts';
import type { Message, Part } from '../../opencode/schema.ts';

/** Per part; longer texts are not read on a page. */
export const MAX_PART_CHARS = 100_000;
const MAX_TITLE_CHARS = 300;
const MAX_TOOL_CHARS = 2_000;
const MAX_ERROR_CHARS = 1_000;
/** Per message; the last parts are kept, which show how it ended. */
const MAX_PARTS = 200;

/** opencode's internal parts. */
const UNSEEN = new Set(['step-start', 'step-finish', 'snapshot', 'patch']);

/** A part as the page shows it. All text is clean and bounded. */
export interface PagePart {
  readonly id: string;
  readonly kind: 'text' | 'reasoning' | 'tool' | 'file' | 'other';
  readonly text: string;
  readonly tool?: string;
  readonly state?: 'running' | 'done' | 'failed';
  readonly title?: string;
}

export interface PageMessage {
  readonly id: string;
  readonly role: 'user' | 'assistant';
  readonly atMs: number;
  readonly parts: readonly PagePart[];
  readonly error?: string;
  readonly done: boolean;
}

export function messageView({ info, parts }: Message): PageMessage {
  const error = info.role === 'assistant' ? info.error : undefined;
  const isDone = info.role === 'user' || info.time.completed !== undefined || error !== undefined;
  return {
    id: info.id,
    role: info.role,
    atMs: info.time.created,
    parts: parts
      .filter(({ type, synthetic, ignored }) => !UNSEEN.has(type) && synthetic !== true && ignored !== true)
      .slice(-MAX_PARTS)
      .map(partView),
    ...(error !== undefined && {
      error: singleLine([error.name, error.data?.message].filter(Boolean).join(': '), MAX_ERROR_CHARS),
    }),
    done: isDone,
  };
}

function partView(part: Part): PagePart {
  const { id, type, text = '', tool, state } = part;
  if (type === 'text' || type === 'reasoning') return { id, kind: type, text: multiLine(text, MAX_PART_CHARS) };
  if (type !== 'tool')
    return {
      id,
      kind: type === 'file' ? 'file' : 'other',
      text: singleLine(text === '' ? type : text, MAX_TOOL_CHARS),
    };
  const { status = '', title = '', input = {}, error } = state ?? {};
  return {
    id,
    kind: 'tool',
    text: multiLine([inputText(input), error].filter(Boolean).join('\n'), MAX_TOOL_CHARS),
    tool: singleLine(tool ?? 'tool', MAX_TITLE_CHARS),
    state: status === 'completed' ? 'done' : status === 'error' ? 'failed' : 'running',
    ...(title !== '' && { title: singleLine(title, MAX_TITLE_CHARS) }),
  };
}

/** The command of a shell tool; the input of others as JSON. */
function inputText(input: Readonly<Record<string, unknown>>): string {
  const { command } = input;
  if (typeof command === 'string') return command;
  return Object.keys(input).length === 0 ? '' : JSON.stringify(input);
}

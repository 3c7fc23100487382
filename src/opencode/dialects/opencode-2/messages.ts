import { isRecord } from '../../../base/errors.ts';
import type { AssistantMessage, Message, Part, Permission, Question, Session } from '../../schema.ts';
import type { WireError, WireField, WireForm, WireMessage, WirePermission, WireSession } from './wire.ts';

/**
 * Reads OpenCode 2's entries of a session as OpenCode 1's messages. They have no parents: a turn is what follows a prompt, until the
 * next prompt or an `idle` entry, which ends a busy period.
 */

export function sessionOf({ id, title, parentID, location, time, revert }: WireSession): Session {
  return {
    id,
    title: title ?? '',
    directory: location.directory,
    time,
    ...(parentID != null && { parentID }),
    ...(revert != null && { revert }),
  };
}

/** @param entries oldest first, in the server's order */
export function messagesOf(entries: readonly WireMessage[]): Message[] {
  const messages: Message[] = [];
  let promptId = '';
  let lastMs = 0;
  for (const [index, entry] of entries.entries()) {
    // The service was stopped, and resumed the turn at its next start with a synthetic entry.
    if (entry.type === 'idle' && entry.outcome === 'interrupted' && entries[index + 1]?.type === 'synthetic') continue;
    // A queued prompt has the time of its admission, which is before the answers ahead of it.
    lastMs = Math.max(lastMs, entry.time.created);
    const message = entry.type === 'idle' ? endOf(entry, messages, promptId) : messageOf(entry, promptId, lastMs);
    if (message === undefined) continue;
    if (entry.type === 'user') promptId = entry.id;
    messages.push(message);
    if (entry.type === 'compaction' && entry.status !== 'running') messages.push(summaryOf(entry, lastMs));
  }
  return messages;
}

function messageOf(entry: WireMessage, promptId: string, createdMs: number): Message | undefined {
  switch (entry.type) {
    case 'user':
      return fromPerson(entry, createdMs, { type: 'text', text: entry.text ?? '' });
    case 'synthetic':
    case 'system':
    case 'skill':
      return fromPerson(entry, createdMs, { type: 'text', text: entry.text ?? '', synthetic: true });
    case 'compaction':
      return fromPerson(entry, createdMs, { type: 'compaction', auto: entry.reason === 'auto' });
    case 'assistant':
      return { info: assistantOf(entry, promptId, createdMs), parts: partsOf(entry) };
    default:
      // Switches of agent or model, a user's shell commands, and types of later versions.
      return undefined;
  }
}

function fromPerson({ id }: WireMessage, created: number, part: Omit<Part, 'id' | 'messageID'>): Message {
  return { info: { id, role: 'user', time: { created } }, parts: [{ ...part, id: partId(id, 0), messageID: id }] };
}

/** The answer to a compaction, which is a message of its own in OpenCode 1. Without it the compaction would look unanswered. */
function summaryOf({ id, error }: WireMessage, created: number): Message {
  const info = { id: `${id}-summary`, role: 'assistant', parentID: id, summary: true } as const;
  const time = { created, completed: created };
  return { info: { ...info, time, ...(error != null && { error: errorOf(error) }) }, parts: [] };
}

function assistantOf(entry: WireMessage, promptId: string, createdMs: number): AssistantMessage {
  const { id, time, finish, error } = entry;
  const completed = time.completed ?? (wasRejected(entry) ? createdMs : undefined);
  return {
    id,
    role: 'assistant',
    parentID: promptId,
    time: { created: createdMs, ...(completed !== undefined && { completed }) },
    ...(finish != null && finish !== 'error' && { finish }),
    ...(error != null && { error: errorOf(error) }),
  };
}

/** The preview never completes a step whose tool was rejected without a message. */
function wasRejected({ content = [] }: WireMessage): boolean {
  const { type, state } = content.at(-1) ?? {};
  return type === 'tool' && state?.status === 'error' && state.error?.message === 'Tool execution interrupted';
}

/** Applies the outcome of a busy period to its last answer, or returns an answer without text. */
function endOf({ id, time, outcome, error }: WireMessage, before: Message[], promptId: string): Message | undefined {
  const last = before.at(-1);
  const answer = last?.info.role === 'assistant' ? last.info : undefined;
  if (answer?.error !== undefined) return undefined;
  const completed = time.created;
  if (outcome === 'succeeded') {
    if (answer !== undefined && last !== undefined) {
      if (answer.time.completed === undefined)
        before[before.length - 1] = {
          ...last,
          info: { ...answer, time: { ...answer.time, completed }, finish: 'stop' },
        };
      return undefined;
    }
    if (last === undefined || last.info.id !== promptId) return undefined;
    const info = { id, role: 'assistant', parentID: promptId, time: { created: completed, completed } } as const;
    return { info: { ...info, finish: 'stop' }, parts: [] };
  }
  const why = outcome === 'interrupted' ? ABORTED : errorOf(error ?? { type: 'unknown', message: '' });
  if (answer === undefined || last === undefined) {
    const info = { id, role: 'assistant', parentID: promptId, time: { created: completed, completed } } as const;
    return { info: { ...info, error: why }, parts: [] };
  }
  before[before.length - 1] = { ...last, info: { ...answer, time: { ...answer.time, completed }, error: why } };
  return undefined;
}

export const ABORTED = { name: 'MessageAbortedError' };

/** The preview's message for a turn that was interrupted by a user or by the end of the process. */
const INTERRUPTED = 'Provider turn interrupted';

export function errorOf({ type, message }: WireError): NonNullable<AssistantMessage['error']> {
  if (message === INTERRUPTED || type === 'aborted') return ABORTED;
  return { name: type === 'unknown' ? 'Error' : type, data: { message } };
}

function partsOf({ id, content = [], time }: WireMessage): Part[] {
  let texts = 0;
  return content.map((one, index): Part => {
    const isText = one.type === 'text';
    const text = one.text ?? '';
    // A text that is being written is empty in the store.
    const hasEnded = time.completed != null || index < content.length - 1 || text !== '';
    const part = { messageID: id, type: one.type, ...(hasEnded && { time: { end: time.completed ?? time.created } }) };
    if (isText) return { ...part, id: partId(id, texts++), text };
    const { name, state } = one;
    const { status = '', input, error } = state ?? {};
    return {
      ...part,
      id: `${partId(id, index)}-${one.type}`,
      ...(name !== undefined && { tool: name }),
      ...(state !== undefined && {
        state: {
          status,
          ...(isRecord(input) && { input }),
          ...(error != null && { error: error.message }),
        },
      }),
    };
  });
}

/** Of a text, by its number in the message: events and the store count alike. */
export function partId(messageId: string, text: number): string {
  return `${messageId}-${String(text).padStart(4, '0')}`;
}

export function permissionOf({ id, sessionID, action, resources, save, metadata, source }: WirePermission): Permission {
  const { command, diff } = metadata ?? {};
  const isShell = action === 'bash' || action === 'shell';
  const whole = typeof command === 'string' ? command : undefined;
  return {
    id,
    sessionID,
    // The approval rules have one name for both generations.
    permission: isShell ? 'bash' : action,
    patterns: resources,
    always: save ?? [],
    metadata: { ...(whole !== undefined && { command: whole }), ...(typeof diff === 'string' && { diff }) },
    ...(source != null && { tool: source }),
  };
}

/** A form as questions, one for each shown field. */
export function questionOf({ id, sessionID, title, fields }: WireForm): Question {
  return {
    id,
    sessionID,
    questions: shownFields(fields).map((field) => ({
      question:
        ([field.title ?? title, field.description, field.url].filter(Boolean).join(': ') || field.key) +
        conditionOf(field, fields),
      options:
        field.type === 'boolean'
          ? [{ label: 'Yes' }, { label: 'No' }]
          : (field.options ?? []).map(({ label }) => ({ label })),
      multiple: field.type === 'multiselect',
      ...(field.custom === false && { custom: false }),
      optional: field.required !== true || isConditional(field),
    })),
  };
}

function isConditional({ when }: WireField): boolean {
  return when != null && when.length > 0;
}

/** ` (only if …)`, or nothing for an unconditional field. */
export function conditionOf({ when }: WireField, fields: readonly WireField[]): string {
  if (when == null || when.length === 0) return '';
  const conditions = when.map(({ key, op, value }) => {
    const other = fields.find((field) => field.key === key);
    const label = other?.options?.find((option) => option.value === value)?.label;
    const wanted = label ?? (typeof value === 'boolean' ? (value ? 'Yes' : 'No') : String(value));
    return `${other?.title ?? key} is ${op === 'neq' ? 'not ' : ''}${wanted}`;
  });
  return ` (only if ${conditions.join(' and ')})`;
}

export function shownFields(fields: readonly WireField[]): readonly WireField[] {
  return fields.filter(({ hidden }) => hidden !== true);
}

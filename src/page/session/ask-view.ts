import { multiLine, singleLine } from '../../base/plain-text.ts';
import { isShownWhole } from '../../operations/respond/ask-person.ts';
import type { Asked } from '../../operations/respond/asked.ts';
import type { WaitingRequest } from '../../opencode/waiting.ts';

/** A person may approve only what is shown as a whole; see `canAllow`. */
const MAX_SHOWN_CHARS = 20_000;
const MAX_LINE_CHARS = 1_000;
const MAX_LABEL_CHARS = 500;
const MAX_QUESTION_CHARS = 4_000;
const MAX_LISTED = 100;

/** A request as the page shows it. `canAllow` false: a part of it cannot be shown, so it can only be rejected here. */
export function askView({ waiting }: Pick<Asked, 'waiting'>) {
  const { id, sessionID: sessionId } = waiting.request;
  if (waiting.kind === 'permission') {
    const { permission, patterns, always, metadata = {} } = waiting.request;
    const { command, diff } = metadata;
    return {
      id,
      sessionId,
      kind: 'permission',
      permission: singleLine(permission, MAX_LABEL_CHARS),
      ...(command !== undefined && { command: multiLine(command, MAX_SHOWN_CHARS) }),
      ...(diff !== undefined && { diff: multiLine(diff, MAX_SHOWN_CHARS) }),
      patterns: lines(patterns),
      always: lines(always),
      canAllow: canAllow(waiting.request),
    };
  }
  return {
    id,
    sessionId,
    kind: 'question',
    questions: waiting.request.questions.map(({ header, question, options, multiple, custom, optional }) => ({
      ...(header !== undefined && { header: singleLine(header, MAX_LABEL_CHARS) }),
      question: multiLine(question, MAX_QUESTION_CHARS),
      options: options.slice(0, MAX_LISTED).map(({ label, description }) => ({
        label: labelShown(label),
        ...(description !== undefined && { description: singleLine(description, MAX_LINE_CHARS) }),
      })),
      multiple: multiple === true,
      custom: custom !== false,
      optional: optional === true,
    })),
  };
}

type PermissionRequest = Extract<WaitingRequest, { kind: 'permission' }>['request'];

/** Whether everything that would be allowed is shown, unchanged. */
export function canAllow({ patterns, metadata = {} }: PermissionRequest): boolean {
  const { command, diff = '' } = metadata;
  const pieces = command === undefined ? patterns : [command];
  const isWhole = command === undefined ? patterns.every((one) => isShownWhole(one, MAX_LINE_CHARS)) : true;
  return (
    isWhole &&
    pieces.length <= MAX_LISTED &&
    isShownWhole(pieces.join('\n'), MAX_SHOWN_CHARS) &&
    isShownWhole(diff, MAX_SHOWN_CHARS)
  );
}

/** A label as it is shown, and as it comes back in an answer. */
export function labelShown(label: string): string {
  return singleLine(label, MAX_LABEL_CHARS);
}

function lines(all: readonly string[]): string[] {
  return all.slice(0, MAX_LISTED).map((one) => multiLine(one, MAX_LINE_CHARS));
}

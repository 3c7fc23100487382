import { quoted, singleLine } from '../base/plain-text.ts';
import type { Permission, Question } from './schema.ts';

/** What a session stops for until somebody answers. */
export type WaitingRequest =
  | { readonly kind: 'permission'; readonly request: Permission }
  | { readonly kind: 'question'; readonly request: Question };

/** Of a question: what opencode's terminal shows at once. */
const MAX_OPTIONS = 12;

/**
 * One line for people: `bash "rm -rf build"`, `Which color? Red | Blue`. A command is told whole, since the patterns are only
 * what a standing permission would cover. Clean and of at most `limit` characters.
 */
export function describeWaiting(waiting: WaitingRequest, limit: number): string {
  return singleLine(waiting.kind === 'permission' ? ofPermission(waiting.request) : ofQuestion(waiting.request), limit);
}

/** Words of a request inside a sentence of ours, in marks that they cannot hold: a command has quotation marks of its own. */
export function inMarks(words: string): string {
  return `«${words.replaceAll(/[«»]/g, "'")}»`;
}

/** Of an error of the model: with the rest of the sentence it stays below what any listing shows of a reason. */
const MAX_RETRY_CHARS = 150;

/** `attempt 2: opencode says "Rate limit"`. */
export function retryingLine({ attempt, message }: { readonly attempt: number; readonly message: string }): string {
  return `attempt ${attempt}: opencode says ${quoted(message, MAX_RETRY_CHARS)}`;
}

function ofPermission({ permission, patterns, metadata }: Permission): string {
  const command = metadata?.command;
  const what = command === undefined ? patterns : [command];
  return [permission, ...what.map((one) => JSON.stringify(one))].join(' ');
}

function ofQuestion({ questions }: Question): string {
  return questions
    .map(({ question, options }) =>
      [
        question,
        options
          .slice(0, MAX_OPTIONS)
          .map(({ label }) => label)
          .join(' | '),
      ]
        .filter(Boolean)
        .join(' '),
    )
    .join('; ');
}

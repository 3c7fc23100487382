import { quoted, singleLine } from '../base/plain-text.ts';
import type { Permission, Question } from './schema.ts';

/** A request that stops a session until it is answered. */
export type WaitingRequest =
  | { readonly kind: 'permission'; readonly request: Permission }
  | { readonly kind: 'question'; readonly request: Question };

/** As many as opencode's terminal shows. */
const MAX_OPTIONS = 12;

/**
 * One clean line of at most `limit` characters: `bash "rm -rf build"`, `Which color? Red | Blue`. Shows the whole command, since
 * the patterns are only what `always` would allow.
 */
export function describeWaiting(waiting: WaitingRequest, limit: number): string {
  return singleLine(waiting.kind === 'permission' ? ofPermission(waiting.request) : ofQuestion(waiting.request), limit);
}

/** Quotes a request inside a sentence. A command may have quotation marks of its own. */
export function inMarks(words: string): string {
  return `«${words.replaceAll(/[«»]/g, "'")}»`;
}

/** Of the model's error, so that the whole sentence is shorter than the reasons that listings show. */
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

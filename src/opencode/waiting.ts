import { singleLine } from '../plain-text.ts';
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

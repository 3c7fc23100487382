import { reworded } from '../base/plain-text.ts';

/** What operations advise a model to call, and what a person on the page does instead. Applied in this order. */
const PHRASES: readonly (readonly [RegExp, string])[] = [
  [/, then call refresh_instances/g, '; the list shows when it is back'],
  [/Once that is put right, call refresh_instances\./g, 'Once that is put right, try again.'],
  [/Call list_instances for details, or refresh_instances to look again/g, 'The list shows what there is'],
  [/Call list_instances to see what there is/g, 'The list shows what there is'],
  [/\bCall (?:refresh_)?instances and choose again/g, 'Choose again in the list'],
  [/\bcall (?:refresh_)?instances and choose again/g, 'choose again in the list'],
  [/\bCall (?:(?:list_|refresh_)?instances) to see\b/g, 'Look in the list'],
  [/\bcall (?:(?:list_|refresh_)?instances) to look again/g, 'look in the list later'],
  [/\b(?:list_instances|refresh_instances)\b/g, 'the list'],
  [/\bCall again\b/g, 'Try again'],
  [/\bcall again\b/g, 'try again'],
];

/** A message of the operations, reworded for a person on the page. */
export function inPageWords(message: string): string {
  return reworded(message, PHRASES);
}

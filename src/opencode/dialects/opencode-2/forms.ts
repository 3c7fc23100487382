import { quoted } from '../../../base/plain-text.ts';
import { conditionOf, shownFields } from './messages.ts';
import type { WireField } from './wire.ts';

type FieldValue = string | number | boolean | readonly string[];

/** Answers to a boolean field. */
const YES = new Set(['yes', 'true']);
const NO = new Set(['no', 'false']);

/** Not external fields, which are answered on another page, nor types of a later version. */
const ANSWERABLE = new Set(['string', 'number', 'integer', 'boolean', 'multiselect']);

const MAX_SHOWN = 60;

/**
 * Converts answers to the types of a form's fields.
 * @param answers one list for each shown field; empty for a field that is left out
 * @returns a problem if an answer does not fit its field
 */
export function formAnswer(
  fields: readonly WireField[],
  answers: readonly (readonly string[])[],
): { readonly answer: Readonly<Record<string, FieldValue>> } | { readonly problem: string } {
  const answer: Record<string, FieldValue> = {};
  for (const [index, field] of shownFields(fields).entries()) {
    const given = answers[index] ?? [];
    if (!isAsked(field, answer)) {
      if (given.length === 0) continue;
      return { problem: `${nameOf(field, index)} is not asked${conditionOf(field, fields)}; give [] for it` };
    }
    if (given.length === 0 && field.required !== true) continue;
    if (!ANSWERABLE.has(field.type))
      return { problem: `${nameOf(field, index)} can be answered only in that opencode` };
    if (given.length === 0) return { problem: `${nameOf(field, index)} needs an answer` };
    const value = valueOf(field, given);
    if (typeof value === 'object' && 'expected' in value)
      return { problem: `${nameOf(field, index)} takes ${value.expected}, not ${quoted(given.join(', '), MAX_SHOWN)}` };
    answer[field.key] = value;
  }
  return { answer };
}

/** A condition can depend only on earlier fields. */
function isAsked({ when }: WireField, answer: Readonly<Record<string, FieldValue>>): boolean {
  return (when ?? []).every(({ key, op, value }) => {
    const given = answer[key];
    const isThat = given === value || (Array.isArray(given) && given.includes(value));
    return isThat === (op !== 'neq');
  });
}

function nameOf({ title, key }: WireField, index: number): string {
  return `field ${index + 1}, ${quoted(title ?? key, MAX_SHOWN)},`;
}

function valueOf(field: WireField, given: readonly string[]): FieldValue | { readonly expected: string } {
  const [first = ''] = given;
  const text = first.trim();
  switch (field.type) {
    case 'multiselect':
      return offerProblem(field, given) ?? countProblem(field, given) ?? given.map((one) => chosen(field, one));
    case 'boolean':
      if (YES.has(text.toLowerCase())) return true;
      return NO.has(text.toLowerCase()) ? false : { expected: 'Yes or No' };
    case 'number':
    case 'integer':
      return numberOf(field, text);
    default:
      return offerProblem(field, given) ?? lengthProblem(field, first) ?? chosen(field, first);
  }
}

/** The value of the option with that label or value, or else the text, which the server may refuse. */
function chosen({ options }: WireField, text: string): string {
  const option =
    options?.find(({ label }) => label === text) ??
    options?.find(({ label, value }) => label.toLowerCase() === text.toLowerCase() || value === text);
  return option?.value ?? text;
}

function offerProblem(field: WireField, given: readonly string[]): { readonly expected: string } | undefined {
  const { options, custom } = field;
  if (custom !== false || options == null) return undefined;
  const isOffered = given.every((one) => options.some(({ value }) => value === chosen(field, one)));
  return isOffered ? undefined : { expected: options.map(({ label }) => quoted(label, MAX_SHOWN)).join(' or ') };
}

function lengthProblem({ minLength, maxLength }: WireField, text: string): { readonly expected: string } | undefined {
  if (text.length < (minLength ?? 0)) return { expected: `at least ${minLength} characters` };
  return text.length > (maxLength ?? Infinity) ? { expected: `at most ${maxLength} characters` } : undefined;
}

function countProblem(
  { minItems, maxItems }: WireField,
  given: readonly string[],
): { readonly expected: string } | undefined {
  if (given.length < (minItems ?? 0)) return { expected: `at least ${minItems} choices` };
  return given.length > (maxItems ?? Infinity) ? { expected: `at most ${maxItems} choices` } : undefined;
}

function numberOf({ type, minimum, maximum }: WireField, text: string): number | { readonly expected: string } {
  const value = text === '' ? Number.NaN : Number(text);
  const kind = type === 'integer' ? 'a whole number' : 'a number';
  if (!Number.isFinite(value) || (type === 'integer' && !Number.isInteger(value))) return { expected: kind };
  if (typeof minimum === 'number' && value < minimum) return { expected: `${kind} of ${minimum} or more` };
  if (typeof maximum === 'number' && value > maximum) return { expected: `${kind} of ${maximum} or less` };
  return value;
}

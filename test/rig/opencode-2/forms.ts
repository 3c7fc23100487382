import type { FormField, FormValue } from './store.ts';

/** The fault in an answer to a form, if any. */
export function checkAnswerOf(
  fields: readonly FormField[],
  answer: Readonly<Record<string, FormValue>>,
): string | undefined {
  const unknown = Object.keys(answer).find((key) => !fields.some((field) => field.key === key));
  if (unknown !== undefined) return `no field ${unknown}`;
  for (const field of fields) {
    const value = answer[field.key];
    const shown = (field.when ?? []).every(({ key, op, value }) => (answer[key] === value) === (op === 'eq'));
    if (!shown || field.type === 'external') {
      if (value !== undefined) return `${field.key} is not asked`;
    } else if (value === undefined) {
      if (field.required === true) return `${field.key} is required`;
    } else if (!fits(field, value)) return `${field.key} does not fit`;
  }
  return undefined;
}

function fits(field: FormField, value: FormValue): boolean {
  const { options, custom = options === undefined } = field;
  const isOffered = (choice: string): boolean => custom || options?.some((option) => option.value === choice) === true;
  switch (field.type) {
    case 'string':
      return (
        typeof value === 'string' &&
        isOffered(value) &&
        isWithin(value.length, field.minLength, field.maxLength) &&
        (field.pattern === undefined || new RegExp(field.pattern).test(value))
      );
    case 'number':
      return typeof value === 'number' && isWithin(value, field.minimum, field.maximum);
    case 'integer':
      return Number.isInteger(value) && isWithin(Number(value), field.minimum, field.maximum);
    case 'boolean':
      return typeof value === 'boolean';
    case 'multiselect':
      return Array.isArray(value) && value.every(isOffered) && isWithin(value.length, field.minItems, field.maxItems);
    case 'external':
      return false;
  }
}

function isWithin(value: number, low = -Infinity, high = Infinity): boolean {
  return value >= low && value <= high;
}

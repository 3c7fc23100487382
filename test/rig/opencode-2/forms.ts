import type { FormField, FormValue } from './store.ts';

/** The reason why an answer does not fit its form, or undefined. */
export function checkAnswerOf(
  fields: readonly FormField[],
  answer: Readonly<Record<string, FormValue>>,
): string | undefined {
  const unknownKey = Object.keys(answer).find((key) => !fields.some((field) => field.key === key));
  if (unknownKey !== undefined) return `no field ${unknownKey}`;
  for (const field of fields) {
    const value = answer[field.key];
    const isShown = (field.when ?? []).every(({ key, op, value }) => (answer[key] === value) === (op === 'eq'));
    if (!isShown || field.type === 'external') {
      if (value !== undefined) return `${field.key} is not asked`;
    } else if (value === undefined) {
      if (field.required === true) return `${field.key} is required`;
    } else if (!fitsField(field, value)) return `${field.key} does not fit`;
  }
  return undefined;
}

function fitsField(field: FormField, value: FormValue): boolean {
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

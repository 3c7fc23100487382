import * as z from 'zod';
import { didYouMean } from './nearest.ts';
import { hasUnsafeCharacters, quote } from '../quote.ts';
import { singleLine } from '../../base/plain-text.ts';

/**
 * Checks one part of the config file. A value of the wrong type gives `expected <the schema's error text>, got <its kind>`: never the
 * value, which may be a secret. A `refine` or `transform` gives its own message. Unknown keys are reported and left out, so that they do
 * not hide further problems.
 */
export function parseShape<T>(schema: z.ZodType<T>, value: unknown, where: string, problems: string[]): T | undefined {
  let known = value;
  if (schema instanceof z.ZodObject && value instanceof Object && !Array.isArray(value)) {
    const keys = Object.keys(schema.shape);
    const unknown = Object.keys(value).filter((key) => !keys.includes(key));
    for (const key of unknown) {
      const hint = didYouMean(key, keys) || '; opencode-mcp help settings lists the keys';
      problems.push(`${place(where, [key])}: unknown key${hint}`);
    }
    known = Object.fromEntries(Object.entries(value).filter(([key]) => keys.includes(key)));
  }
  const result = schema.safeParse(known);
  for (const { code, path, message } of result.error?.issues ?? []) {
    const problem = code === 'custom' ? message : `expected ${message}, got ${kindOf(valueAt(value, path))}`;
    problems.push(`${place(where, path)}: ${problem}`);
  }
  return result.data;
}

/** An object of the config file. */
export function part<Shape extends z.ZodRawShape>(shape: Shape): z.ZodObject<Shape> {
  return z.object(shape, { error: 'an object' });
}

/** A string for which `problemOf` finds nothing. */
export function text(problemOf: (value: string) => string | undefined): z.ZodString {
  return z.string({ error: 'a string' }).superRefine((value, context) => {
    const problem = problemOf(value);
    if (problem !== undefined) context.addIssue(problem);
  });
}

// The longest DNS name has 253.
const MAX_PATTERN_CHARACTERS = 256;

/** A pattern for names, hosts or pieces of a request. */
export const pattern = text((value) =>
  value === '' || value.length > MAX_PATTERN_CHARACTERS || hasUnsafeCharacters(value)
    ? `expected 1 to ${MAX_PATTERN_CHARACTERS} characters, none of them control or invisible, got ${quote(value)}`
    : undefined,
);

const MAX_NAME_CHARACTERS = 64;

/** A name that is not in `names` yet; checking it adds it. */
export function uniqueName(names: Set<string>): z.ZodString {
  return text((name) => {
    if (name === '' || name.length > MAX_NAME_CHARACTERS || hasUnsafeCharacters(name) || name.trim() !== name)
      return `expected 1 to ${MAX_NAME_CHARACTERS} characters, no control or invisible ones, no leading or trailing spaces, got ${quote(name)}`;
    if (names.has(name)) return `expected a unique name, got ${quote(name)} a second time`;
    names.add(name);
    return undefined;
  });
}

/** Checks each entry of an array on its own, so that one mistake does not hide the next. */
export function entries<T>(
  raw: unknown,
  where: string,
  problems: string[],
  check: (entry: unknown, place: string) => T | undefined,
): T[] {
  const list = parseShape(z.array(z.unknown(), { error: 'an array' }), raw, where, problems) ?? [];
  return list.flatMap((entry, index) => check(entry, `${where}[${index}]`) ?? []);
}

/** Appends keys and indices: `/home/u/config.json: instances[0].url`. A key may be a whole header line; only its first word is shown. */
function place(where: string, path: readonly PropertyKey[]): string {
  return path
    .reduce<string>((sofar, step) => {
      if (typeof step === 'number') return `${sofar}[${step}]`;
      const key = singleLine(/^[\w-]*/.exec(String(step))?.[0] ?? '', 80);
      return sofar.endsWith(': ') ? sofar + key : `${sofar}.${key}`;
    }, where)
    .replace(/: $/, '');
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, step) => (inner instanceof Object ? Reflect.get(inner, step) : undefined), value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

import type * as z from 'zod';

import { parsed } from '../clean-stdio.ts';

/** The parts of a listed input schema that decide how an argument is read. */
interface Schema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

export type Arguments = Readonly<Record<string, unknown>>;

/** n8n (1.119 and later) adds these to the arguments of every call. */
const OF_N8N: ReadonlySet<string> = new Set(['toolCallId', 'sessionId', 'action', 'chatInput']);

/**
 * Reads arguments by the listed schema. Clients send numbers, booleans and lists as strings, and `null`, `""` or `[]` for a missing
 * argument. Strings stay as they are if the schema wants strings. Values that do not fit stay too, for the tool's schema to refuse.
 */
export function readArguments(properties: Readonly<Record<string, unknown>>, given: Arguments): Arguments {
  const schemas = new Map(Object.entries(properties));
  const read = Object.entries(given).flatMap(([key, value]): readonly (readonly [string, unknown])[] => {
    const schema = schemas.get(key);
    if (schema === undefined) return isOfN8n(key, given) ? [] : [[key, value]];
    const argument = readValue(schema as Schema, value);
    return isBlank(argument) ? [] : [[key, argument]];
  });
  return Object.fromEntries(read);
}

/** n8n's `sessionId` is its chat. But without n8n's other keys, an opencode id there is a mistyped `session_id`, and not to be ignored. */
function isOfN8n(key: string, given: Arguments): boolean {
  if (!OF_N8N.has(key)) return false;
  const { [key]: value } = given;
  const [id] = Array.isArray(value) ? (value as readonly unknown[]) : [value];
  if (key !== 'sessionId' || typeof id !== 'string' || !/^\W*ses_/.test(id)) return true;
  return Object.keys(given).some((other) => other !== key && OF_N8N.has(other));
}

function isBlank(value: unknown): boolean {
  return value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);
}

function readValue(schema: Schema, value: unknown): unknown {
  const { items } = [schema, ...(schema.anyOf ?? [])].find(({ type }) => type === 'array') ?? {};
  if (items !== undefined) {
    const list = parsed(value);
    if (Array.isArray(list)) return readList(items, list);
    // A number in a string keeps its digits as written; other JSON in a string is parsed.
    if (schema.type === 'array')
      return isBlank(list) ? undefined : readList(items, [typeof list === 'number' ? value : list]);
  }
  if (items !== undefined || (schema.type === 'string' && schema.enum === undefined))
    return typeof value === 'number' || typeof value === 'boolean' ? String(value) : value;
  const word = typeof value === 'string' ? value.trim().toLowerCase() : value;
  const plain = parsed(word);
  if (isBlank(plain) || schema.enum !== undefined) return plain;
  return schema.type === 'boolean' && (plain === 0 || plain === 1) ? plain === 1 : plain;
}

/** Drops blanks from a list. A list of lists keeps them, since its order has a meaning. */
function readList(items: Schema, list: readonly unknown[]): readonly unknown[] {
  if (items.type === 'array') return list.map((one) => readValue(items, one) ?? []);
  return list.map((one) => readValue(items, one)).filter((one) => !isBlank(one));
}

/** Says why the arguments do not fit, for a model. */
export function describeBadInput(name: string, input: z.ZodObject, args: Arguments, error: z.ZodError): string {
  const problems = error.issues.slice(0, 5).map((issue) => {
    if (issue.code === 'unrecognized_keys')
      return `unknown argument ${issue.keys.slice(0, 5).map(quoteKey).join(', ')}`;
    const [key = 'arguments'] = issue.path;
    if (!Object.hasOwn(args, key)) return `${String(key)} is missing`;
    const expected = issue.code === 'invalid_union' ? 'expected text, or a list of 1 to 20 texts' : issue.message;
    return `${issue.path.join('.')}: ${expected}`;
  });
  const known = Object.keys(input.shape).join(', ');
  return `${name}: ${problems.join('; ')}. It takes: ${known || 'nothing'}. Nothing was done.`;
}

function quoteKey(key: string): string {
  return JSON.stringify(key.slice(0, 60));
}

import { readFileSync } from 'node:fs';

import { z } from 'zod';

/** A type of `contract.json`: as in JSON Schema, but an object with `properties` has no others, and `values` are a record's. */
interface Shape {
  readonly $ref?: string;
  readonly anyOf?: readonly Shape[];
  readonly const?: string | number | boolean;
  readonly enum?: readonly string[];
  readonly type?: 'array' | 'string' | 'number' | 'integer' | 'boolean';
  readonly items?: Shape;
  readonly values?: Shape;
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly required?: readonly string[];
}

export interface ContractRoute {
  /** Which directory's plugins it runs: the one that the query or header names, that of the session, or none. */
  readonly loads: 'nothing' | 'query' | 'session';
  readonly query?: Shape;
  readonly body?: Shape;
  readonly bodyRequired?: boolean;
  /** By status; null: no JSON body. */
  readonly answers: Readonly<Record<string, Shape | null>>;
}

interface Contract {
  readonly version: string;
  readonly errors: Readonly<Record<string, Shape>>;
  readonly routes: Readonly<Record<string, ContractRoute>>;
  readonly events: Readonly<Record<string, { readonly durable: boolean; readonly data: Shape }>>;
  readonly $defs: Readonly<Record<string, Shape>>;
}

/** The used types and paths of OpenCode 2.1.2; `make-contract.mjs` names their origin. */
export const CONTRACT: Contract = JSON.parse(readFileSync(new URL('contract.json', import.meta.url), 'utf8'));

const named = new Map<string, z.ZodType>();
const built = new WeakMap<Shape, z.ZodType>();

/** The fault in a request's query, if any. */
export function checkQuery({ query = { properties: {} } }: ContractRoute, value: unknown): string | undefined {
  return check(query, value);
}

/** The fault in a request's body, if any. */
export function checkBody({ body, bodyRequired }: ContractRoute, value: unknown): string | undefined {
  if (value === undefined) return bodyRequired === true ? 'a body is missing' : undefined;
  return body ? check(body, value) : 'a body that the route does not take';
}

/** The fault in an answer, if any. A stream's head and a file have no JSON body. */
export function checkAnswer({ answers }: ContractRoute, status: number, body: unknown): string | undefined {
  const shape = answers[status] === undefined ? CONTRACT.errors[status] : answers[status];
  if (shape === undefined) return `status ${status} is not one of the route's`;
  return shape === null ? undefined : check(shape, body);
}

/** The fault in an event of `/api/event` or of a session's log, if any. */
export function checkEvent(event: { readonly type: string }): string | undefined {
  if (event.type === 'log.synced') return check(LOG_SYNCED, event);
  const known = CONTRACT.events[event.type];
  return known ? check(envelope(event.type, known), event) : `no event ${event.type}`;
}

const LOG_SYNCED: Shape = {
  properties: { type: { const: 'log.synced' }, aggregateID: { type: 'string' }, seq: { type: 'integer' } },
  required: ['type', 'aggregateID'],
};
const DURABLE: Shape = {
  properties: { aggregateID: { type: 'string' }, seq: { type: 'integer' }, version: { type: 'integer' } },
  required: ['aggregateID', 'seq', 'version'],
};
const envelopes = new Map<string, Shape>();

function envelope(type: string, { durable, data }: Contract['events'][string]): Shape {
  const found = envelopes.get(type) ?? {
    properties: {
      id: { type: 'string' },
      type: { const: type },
      data,
      ...(type === 'server.connected' ? {} : { created: { type: 'number' } }),
      ...(durable ? { durable: DURABLE } : {}),
      location: { $ref: '#/$defs/LocationRef' },
    },
    required: ['id', 'data', ...(type === 'server.connected' ? [] : ['created']), ...(durable ? ['durable'] : [])],
  };
  envelopes.set(type, found);
  return found;
}

function check(shape: Shape, value: unknown): string | undefined {
  const result = build(shape).safeParse(value);
  return result.success ? undefined : result.error.issues.map((issue) => describe(issue)).join('; ');
}

/** The fault of the nearest variant of a union. */
function describe(issue: z.core.$ZodIssue, above: readonly PropertyKey[] = []): string {
  const path = [...above, ...issue.path];
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const [nearest = []] = issue.errors.toSorted((a, b) => distance(a) - distance(b));
    return nearest.map((inner) => describe(inner, path)).join('; ');
  }
  return `${path.map(String).join('.') || 'it'}: ${issue.message}`;
}

/** A variant whose constants fit is nearer than any other. */
function distance(issues: readonly z.core.$ZodIssue[]): number {
  return issues.length + (issues.some(({ code }) => code === 'invalid_value') ? 1000 : 0);
}

function build(shape: Shape): z.ZodType {
  let found = built.get(shape);
  if (!found) built.set(shape, (found = make(shape)));
  return found;
}

function make(shape: Shape): z.ZodType {
  if (shape.$ref !== undefined) return reference(shape.$ref.slice('#/$defs/'.length));
  if (shape.anyOf) return z.union(shape.anyOf.map(build));
  if (shape.const !== undefined) return z.literal(shape.const);
  if (shape.enum) return z.enum([...shape.enum]);
  if (shape.values) return z.record(z.string(), build(shape.values));
  if (shape.properties) {
    const fields = Object.entries(shape.properties).map(([key, field]): [string, z.ZodType] => {
      const type = build(field);
      return [key, shape.required?.includes(key) === true ? type : type.optional()];
    });
    return z.strictObject(Object.fromEntries(fields));
  }
  const { type } = shape;
  if (type === undefined) return z.unknown();
  switch (type) {
    case 'array':
      return z.array(build(shape.items ?? {}));
    case 'string':
      return z.string();
    case 'number':
      return z.number();
    case 'integer':
      return z.int();
    case 'boolean':
      return z.boolean();
  }
}

function reference(name: string): z.ZodType {
  const shape = CONTRACT.$defs[name];
  if (!shape) throw new Error(`contract.json has no type ${name}`);
  let found = named.get(name);
  if (!found) named.set(name, (found = z.lazy(() => build(shape))));
  return found;
}

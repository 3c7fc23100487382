import { readFileSync } from 'node:fs';

import { z } from 'zod';

/** A type in `contract.json`: JSON Schema, except that an object with `properties` allows no others, and `values` is the type of a record's values. */
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
  /** Where the route gets the directory whose plugins it runs: the query or header, the session, or nowhere. */
  readonly loads: 'nothing' | 'query' | 'session';
  readonly query?: Shape;
  readonly body?: Shape;
  readonly bodyRequired?: boolean;
  /** Bodies by status; null: no JSON body. */
  readonly answers: Readonly<Record<string, Shape | null>>;
}

interface Contract {
  readonly version: string;
  readonly errors: Readonly<Record<string, Shape>>;
  readonly routes: Readonly<Record<string, ContractRoute>>;
  readonly events: Readonly<Record<string, { readonly durable: boolean; readonly data: Shape }>>;
  readonly $defs: Readonly<Record<string, Shape>>;
}

/** The types and paths of OpenCode 2.1.2 that we use; `make-contract.mjs` names their origin. */
export const CONTRACT: Contract = JSON.parse(readFileSync(new URL('contract.json', import.meta.url), 'utf8'));

const builtTypes = new WeakMap<Shape, z.ZodType>();

/** Returns the fault in a request's query, if any. */
export function checkQuery({ query = { properties: {} } }: ContractRoute, value: unknown): string | undefined {
  return check(query, value);
}

/** Returns the fault in a request's body, if any. */
export function checkBody({ body, bodyRequired }: ContractRoute, value: unknown): string | undefined {
  if (value === undefined) return bodyRequired === true ? 'a body is missing' : undefined;
  return body ? check(body, value) : 'a body that the route does not take';
}

/** Returns the fault in an answer, if any. A stream's head and a file have no JSON body. */
export function checkAnswer({ answers }: ContractRoute, status: number, body: unknown): string | undefined {
  const shape = answers[status] === undefined ? CONTRACT.errors[status] : answers[status];
  if (shape === undefined) return `status ${status} is not one of the route's`;
  return shape === null ? undefined : check(shape, body);
}

/** Returns the fault in an event, if any. */
export function checkEvent(event: { readonly type: string }): string | undefined {
  const shape = EVENTS[event.type];
  return shape ? check(shape, event) : `no event ${event.type}`;
}

const DURABLE: Shape = {
  properties: { aggregateID: { type: 'string' }, seq: { type: 'integer' }, version: { type: 'integer' } },
  required: ['aggregateID', 'seq', 'version'],
};
/** The shape of each event type, envelope included. */
const EVENTS: Readonly<Record<string, Shape>> = Object.fromEntries(
  Object.entries(CONTRACT.events).map(([type, { durable, data }]): [string, Shape] => {
    const properties: Record<string, Shape> = { id: { type: 'string' }, type: { const: type }, data };
    if (type !== 'server.connected') properties['created'] = { type: 'number' };
    if (durable) properties['durable'] = DURABLE;
    const location = { $ref: '#/$defs/LocationRef' };
    return [type, { properties: { ...properties, location }, required: Object.keys(properties) }];
  }),
);

function check(shape: Shape, value: unknown): string | undefined {
  const result = build(shape).safeParse(value);
  return result.success ? undefined : result.error.issues.map((issue) => describe(issue)).join('; ');
}

/** Describes an issue; for a union, the issues of the nearest variant. */
function describe(issue: z.core.$ZodIssue, above: readonly PropertyKey[] = []): string {
  const path = [...above, ...issue.path];
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const [nearest = []] = issue.errors.toSorted((a, b) => distance(a) - distance(b));
    return nearest.map((inner) => describe(inner, path)).join('; ');
  }
  return `${path.map(String).join('.') || 'it'}: ${issue.message}`;
}

/** A variant with the right constants is nearer than any other. */
function distance(issues: readonly z.core.$ZodIssue[]): number {
  return issues.length + (issues.some(({ code }) => code === 'invalid_value') ? 1000 : 0);
}

function build(shape: Shape): z.ZodType {
  let type = builtTypes.get(shape);
  if (!type) builtTypes.set(shape, (type = convert(shape)));
  return type;
}

function convert(shape: Shape): z.ZodType {
  if (shape.$ref !== undefined) {
    const target = CONTRACT.$defs[shape.$ref.slice('#/$defs/'.length)];
    if (!target) throw new Error(`contract.json has no ${shape.$ref}`);
    // Types may refer to themselves.
    return z.lazy(() => build(target));
  }
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

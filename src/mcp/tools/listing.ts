import type { Tool as SdkTool } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';

import type { Tool } from './tool.ts';

/** A tool as the protocol lists it. */
export type ListedTool = SdkTool;

type JsonSchema = Record<string, unknown> & {
  readonly properties?: Record<string, JsonSchema>;
  readonly items?: JsonSchema;
};

/** How deep results are described. These show what the others' are made of, and models are seldom shown it. */
const OUTPUT_DEPTHS: Readonly<Record<string, number>> = { instances: 3, send: 2, read: 3 };

/** A tool as tools/list shows it. Every byte here is in the context of every conversation: what a model does not need is left out. */
export function listTool({ name, description, annotations, input, output }: Tool): ListedTool {
  const outputSchema = trim(jsonSchema(output, 'output'), OUTPUT_DEPTHS[name] ?? 0);
  return {
    name,
    description,
    annotations,
    inputSchema: withoutIntegerLimits(jsonSchema(input, 'input')) as ListedTool['inputSchema'],
    outputSchema: outputSchema as ListedTool['outputSchema'],
  };
}

function jsonSchema(schema: z.ZodObject, io: 'input' | 'output'): JsonSchema {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io }) as JsonSchema;
  return rest;
}

/** zod writes the safe integer range into every integer; that a count or an offset is not negative goes without saying. */
function withoutIntegerLimits(schema: JsonSchema): JsonSchema {
  const properties = Object.entries(schema.properties ?? {}).map(([key, property]) => {
    const { maximum, minimum, ...rest } = property;
    const limits = {
      ...(minimum !== undefined && minimum !== 0 && minimum !== 1 && { minimum }),
      ...(maximum !== undefined && maximum !== Number.MAX_SAFE_INTEGER && { maximum }),
    };
    return [key, { ...rest, ...limits }] as const;
  });
  return { ...schema, properties: Object.fromEntries(properties) };
}

/**
 * Keeps names and types: the SDK's client holds a result against this schema, so it must allow
 * whatever the full one allows. Below `depth` only the kind of value is told.
 */
function trim(schema: JsonSchema, depth: number): JsonSchema {
  const { type, properties, items, required } = schema;
  if (items !== undefined) return { type, items: trim(items, depth - 1) };
  if (properties === undefined || depth <= 0) return { type };
  const trimmed = Object.entries(properties).map(([key, property]) => [key, trim(property, depth - 1)] as const);
  return { type, properties: Object.fromEntries(trimmed), required };
}

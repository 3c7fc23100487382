import type { Tool as SdkTool } from '@modelcontextprotocol/sdk/types.js';
import * as z from 'zod';

import type { Tool } from './tool.ts';

export type ListedTool = SdkTool;

type JsonSchema = Record<string, unknown> & {
  readonly properties?: Record<string, JsonSchema>;
  readonly items?: JsonSchema;
};

/** Depth of the listed output schemas; 0 for the other tools, which return the same parts. Few clients show models these schemas. */
const OUTPUT_DEPTHS: Readonly<Record<string, number>> = { instances: 3, send: 2, read: 3 };

/** The entry leaves out all that a model does not need: every byte is in the context of each conversation. */
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

/** zod adds the safe integer range to every integer. Lower bounds of 0 and 1 are obvious to a model. */
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
 * Keeps names and types, and below `depth` only the type of the value. The SDK's client validates results against this schema, so
 * it must allow all that the full schema allows.
 */
function trim(schema: JsonSchema, depth: number): JsonSchema {
  const { type, properties, items, required } = schema;
  if (items !== undefined) return { type, items: trim(items, depth - 1) };
  if (properties === undefined || depth <= 0) return { type };
  const trimmed = Object.entries(properties).map(([key, property]) => [key, trim(property, depth - 1)] as const);
  return { type, properties: Object.fromEntries(trimmed), required };
}

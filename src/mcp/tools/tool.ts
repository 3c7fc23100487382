import * as z from 'zod';

import type { Toolset } from '../../config/settings.ts';
import type { Answer } from '../../operations/answer.ts';
import type { Call, Runtime } from '../../operations/runtime.ts';

/** One MCP tool. Operations are loaded when a tool is first called: tools/list needs none of them. */
export interface Tool {
  readonly name: string;
  readonly toolset: Toolset;
  readonly description: string;
  readonly annotations: {
    readonly readOnlyHint: boolean;
    readonly destructiveHint?: boolean;
    readonly idempotentHint?: boolean;
    readonly openWorldHint: boolean;
  };
  /** Whether a call follows a turn, which may take long: where the client can, it runs in the background. */
  readonly followsTurn?: ((args: Readonly<Record<string, unknown>>) => boolean) | undefined;
  readonly input: z.ZodObject;
  readonly output: z.ZodObject;
  /** `input` is what the input schema gave. */
  run(runtime: Runtime, input: never, call: Call): Promise<Answer<unknown>>;
}

export const READS = { readOnlyHint: true, openWorldHint: true } as const;
export const DRIVES = { readOnlyHint: false, destructiveHint: true, openWorldHint: true } as const;

/** Said once, in the core tools: the others take the same, and each word is in every conversation. */
export const instance = z.string();
export const sessionId = z.string();

/** Keeps the input's type between a tool's schema and its handler. */
export function tool<Shape extends z.ZodRawShape>(definition: {
  readonly name: string;
  readonly toolset: Toolset;
  readonly description: string;
  readonly annotations: Tool['annotations'];
  readonly followsTurn?: Tool['followsTurn'];
  readonly input: Shape;
  readonly output: z.ZodObject;
  readonly run: (runtime: Runtime, input: z.output<z.ZodObject<Shape>>, call: Call) => Promise<Answer<unknown>>;
}): Tool {
  return { ...definition, input: z.strictObject(definition.input) };
}

import * as z from 'zod';

import type { Toolset } from '../../config/settings.ts';
import type { Answer } from '../../operations/answer.ts';
import type { Call, Runtime } from '../../operations/runtime.ts';

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
  /** Whether a call follows a turn, which may take long. Such a call runs in the background if the client supports that. */
  readonly followsTurn?: ((args: Readonly<Record<string, unknown>>) => boolean) | undefined;
  readonly input: z.ZodObject;
  readonly output: z.ZodObject;
  /** Loads the operation when the tool is first called; tools/list needs no operation. */
  operation(): Promise<Operation<never>>;
}

export const READS = { readOnlyHint: true, openWorldHint: true } as const;
export const DRIVES = { readOnlyHint: false, destructiveHint: true, openWorldHint: true } as const;

export const instance = z.string();
export const sessionId = z.string();

/** What a tool does. `input` is the output of its input schema. */
type Operation<Input> = (runtime: Runtime, input: Input, call: Call) => Promise<Answer<unknown>>;

/** Ties the operation's input type to the schema. */
export function tool<Shape extends z.ZodRawShape>(definition: {
  readonly name: string;
  readonly toolset: Toolset;
  readonly description: string;
  readonly annotations: Tool['annotations'];
  readonly followsTurn?: Tool['followsTurn'];
  readonly input: Shape;
  readonly output: z.ZodObject;
  readonly operation: () => Promise<Operation<z.output<z.ZodObject<Shape>>>>;
}): Tool {
  return { ...definition, input: z.strictObject(definition.input) };
}

import * as z from 'zod';

/**
 * What this program uses of opencode's answers, checked at the edge: the other end may be
 * anything. Unknown fields are dropped. Shapes as of opencode 1.18.10 to 1.18.33.
 */

const id = z.string().min(1).max(128);
const timeMs = z.number().finite();

export const sessionSchema = z.object({
  id,
  title: z.string(),
  directory: z.string(),
  parentID: id.optional(),
  time: z.object({ created: timeMs, updated: timeMs }),
});
export type Session = z.infer<typeof sessionSchema>;

const userMessageSchema = z.object({
  id,
  role: z.literal('user'),
  time: z.object({ created: timeMs }),
});

const messageErrorSchema = z.object({
  name: z.string(),
  data: z.object({ message: z.string().optional() }).optional(),
});

const assistantMessageSchema = z.object({
  id,
  role: z.literal('assistant'),
  parentID: id,
  time: z.object({ created: timeMs, completed: timeMs.optional() }),
  error: messageErrorSchema.optional(),
  finish: z.string().optional(),
});
export type AssistantMessage = z.infer<typeof assistantMessageSchema>;

export const messageInfoSchema = z.discriminatedUnion('role', [userMessageSchema, assistantMessageSchema]);

export const partSchema = z.object({
  id,
  messageID: id,
  type: z.string(),
  /** Text and reasoning parts; empty in the store until the part has ended. */
  text: z.string().optional(),
  synthetic: z.boolean().optional(),
  ignored: z.boolean().optional(),
  time: z.object({ start: timeMs.optional(), end: timeMs.optional() }).optional(),
  /** Tool parts. */
  tool: z.string().optional(),
  state: z
    .object({
      status: z.string(),
      title: z.string().optional(),
      input: z.record(z.string(), z.unknown()).optional(),
      error: z.string().optional(),
    })
    .optional(),
});
export type Part = z.infer<typeof partSchema>;

export const messageSchema = z.object({ info: messageInfoSchema, parts: z.array(partSchema) });
export type Message = z.infer<typeof messageSchema>;

export const sessionStatusSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('idle') }),
  z.object({ type: z.literal('busy') }),
  z.object({
    type: z.literal('retry'),
    attempt: z.number(),
    message: z.string(),
    /** When the next attempt starts, ms since the epoch of the server's clock. */
    next: z.number().optional(),
  }),
]);
export type SessionStatus = z.infer<typeof sessionStatusSchema>;

/** Only what is not idle is listed. */
export const sessionStatusesSchema = z.record(z.string(), sessionStatusSchema);

const toolCallSchema = z.object({ messageID: id });

export const permissionSchema = z.object({
  id,
  sessionID: id,
  permission: z.string(),
  patterns: z.array(z.string()).default([]),
  /** What a standing permission would cover. */
  always: z.array(z.string()).default([]),
  metadata: z
    .object({
      /** Of a shell command: the whole of it. */
      command: z.string().optional().catch(undefined),
      /** Of an edit. */
      diff: z.string().optional().catch(undefined),
    })
    .optional()
    .catch(undefined),
  /** The call that waits. */
  tool: toolCallSchema.optional(),
});
export type Permission = z.infer<typeof permissionSchema>;

export const questionSchema = z.object({
  id,
  sessionID: id,
  questions: z.array(
    z.object({
      question: z.string(),
      options: z.array(z.object({ label: z.string() })).default([]),
      multiple: z.boolean().optional(),
    }),
  ),
  tool: toolCallSchema.optional(),
});
export type Question = z.infer<typeof questionSchema>;

/** A few of many fields. */
export const agentSchema = z.object({
  name: z.string(),
  mode: z.string().optional(),
  hidden: z.boolean().optional(),
});

/** The answer holds API keys, which are dropped here. */
export const providersSchema = z.object({
  providers: z.array(z.object({ id: z.string(), models: z.record(z.string(), z.unknown()) })),
});

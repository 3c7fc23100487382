import * as z from 'zod';

/** opencode's answers (1.18.10 to 1.18.33), which may come from anything. Fields that are not used are dropped. */

/** Ids go into text and paths as they are. opencode's own are a prefix and 26 letters and digits; of a client's it checks only the prefix. */
export const idOf = (prefix: string): z.ZodString => z.string().regex(new RegExp(`^${prefix}[0-9A-Za-z_-]{1,125}$`));
const sessionId = idOf('ses');
export const messageId = idOf('msg');
/** Never shown. */
const partId = z.string().min(1).max(128);
/** In the range of a Date. */
export const timeMs = z.number().min(0).max(8.64e15);

/** `x-next-cursor`: opaque, some 80 characters of base64url (1.18.33). */
export const cursorSchema = z.string().regex(/^[\x21-\x7e]{1,1024}$/);

export const sessionSchema = z.object({
  id: sessionId,
  title: z.string(),
  directory: z.string(),
  parentID: sessionId.optional(),
  time: z.object({ created: timeMs, updated: timeMs, archived: timeMs.nullish() }),
  /** The message, or its part, from which on everything is undone. opencode removes it with the next prompt (1.18.33). */
  revert: z.object({ messageID: messageId, partID: z.string().nullish() }).nullish(),
});
export type Session = z.infer<typeof sessionSchema>;

/** Leaves out malformed entries, so that they do not hide the others; fails if all are malformed. */
export const sensible = <T extends z.ZodType>(schema: T) =>
  z.array(z.unknown()).transform((entries, context): z.infer<T>[] => {
    const parsed = entries.map((entry) => schema.safeParse(entry));
    const found = parsed.flatMap((one) => (one.success ? [one.data] : []));
    if (found.length > 0 || entries.length === 0) return found;
    const issue = parsed[0]?.error?.issues[0];
    context.addIssue({ code: 'custom', path: [0, ...(issue?.path ?? [])], message: issue?.message ?? 'nothing known' });
    return z.NEVER;
  });

export const sessionsSchema = sensible(sessionSchema);

const userMessageSchema = z.object({
  id: messageId,
  role: z.literal('user'),
  time: z.object({ created: timeMs }),
});

export const messageErrorSchema = z.object({
  name: z.string(),
  data: z.object({ message: z.string().optional() }).optional(),
});

const assistantMessageSchema = z.object({
  id: messageId,
  role: z.literal('assistant'),
  parentID: messageId,
  time: z.object({ created: timeMs, completed: timeMs.optional() }),
  error: messageErrorSchema.optional(),
  finish: z.string().optional(),
  /** It sums up earlier messages for the model, and is no answer. */
  summary: z.boolean().optional(),
});
export type AssistantMessage = z.infer<typeof assistantMessageSchema>;

export const messageInfoSchema = z.discriminatedUnion('role', [userMessageSchema, assistantMessageSchema]);

export const partSchema = z.object({
  id: partId,
  messageID: messageId,
  type: z.string(),
  /** Of text and reasoning; empty in the store until the part has ended. */
  text: z.string().optional(),
  synthetic: z.boolean().optional(),
  ignored: z.boolean().optional(),
  /** Of a compaction: opencode began it. `overflow`: it then repeats the user's message, if there is an earlier one. */
  auto: z.boolean().optional(),
  overflow: z.boolean().optional(),
  time: z.object({ start: timeMs.optional(), end: timeMs.optional() }).optional(),
  /** Of a tool. */
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
    /** When the next attempt starts, ms since the epoch by the server's clock. */
    next: z.number().optional(),
  }),
]);
export type SessionStatus = z.infer<typeof sessionStatusSchema>;

/** Without idle sessions. */
export const sessionStatusesSchema = z.record(sessionId, sessionStatusSchema);

const toolCallSchema = z.object({ messageID: messageId });

/** A malformed one fails the whole list: left out, it would look as if nothing waited. */
export const permissionSchema = z.object({
  id: idOf('per'),
  sessionID: sessionId,
  permission: z.string(),
  patterns: z.array(z.string()).default([]),
  /** The patterns that `always` would allow. */
  always: z.array(z.string()).default([]),
  metadata: z
    .object({
      /** The whole shell command. */
      command: z.string().optional().catch(undefined),
      /** Of an edit. */
      diff: z.string().optional().catch(undefined),
    })
    .optional()
    .catch(undefined),
  /** The waiting call. */
  tool: toolCallSchema.optional(),
});
export type Permission = z.infer<typeof permissionSchema>;

export const questionSchema = z.object({
  /** `que…`; of a form of OpenCode 2 `frm…`, or what a plugin chose. */
  id: z.string().regex(/^[0-9A-Za-z_-]{1,128}$/),
  sessionID: sessionId,
  questions: z.array(
    z.object({
      question: z.string(),
      header: z.string().optional().catch(undefined),
      /** May be left unanswered. */
      optional: z.boolean().optional(),
      options: z
        .array(z.object({ label: z.string(), description: z.string().optional().catch(undefined) }))
        .default([]),
      multiple: z.boolean().optional(),
      /** False: the answer must be one of the options. */
      custom: z.boolean().optional().catch(undefined),
    }),
  ),
  tool: toolCallSchema.optional(),
});
export type Question = z.infer<typeof questionSchema>;

export const agentSchema = z.object({
  name: z.string(),
  mode: z.string().optional(),
  hidden: z.boolean().optional(),
});

/** The answer holds API keys, which are dropped here. */
export const providersSchema = z.object({
  providers: z.array(z.object({ id: z.string(), models: z.record(z.string(), z.unknown()) })),
});

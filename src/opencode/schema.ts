import * as z from 'zod';

/**
 * What this program uses of opencode's answers, checked at the edge: the other end may be
 * anything. Unknown fields are dropped. Shapes as of opencode 1.18.10 to 1.18.33.
 */

/**
 * Ids stand bare in our text and go into paths. opencode's own are a prefix and 26 letters and digits; clients may choose
 * others, of which it checks the prefix alone.
 */
const idOf = (prefix: string): z.ZodString => z.string().regex(new RegExp(`^${prefix}[0-9A-Za-z_-]{1,125}$`));
const sessionId = idOf('ses');
export const messageId = idOf('msg');
/** A part's id: distinguishes parts, and is never shown. */
const partId = z.string().min(1).max(128);
/** What a Date can hold. */
const timeMs = z.number().min(0).max(8.64e15);

/** `x-next-cursor`: opaque, base64url of some 80 characters (1.18.33). It is shown, and comes back as it is. */
export const cursorSchema = z.string().regex(/^[\x21-\x7e]{1,1024}$/);

export const sessionSchema = z.object({
  id: sessionId,
  title: z.string(),
  directory: z.string(),
  parentID: sessionId.optional(),
  time: z.object({ created: timeMs, updated: timeMs, archived: timeMs.nullish() }),
  /** What was undone: all from this message on, or from a part of it on. opencode removes it with the next prompt (1.18.33). */
  revert: z.object({ messageID: messageId, partID: z.string().nullish() }).nullish(),
});
export type Session = z.infer<typeof sessionSchema>;

/** A list of which an entry that makes no sense is left out, so that it hides no other; where none makes sense, it is no such list. */
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
  /** It sums up what was said before, for the model: no answer. */
  summary: z.boolean().optional(),
});
export type AssistantMessage = z.infer<typeof assistantMessageSchema>;

export const messageInfoSchema = z.discriminatedUnion('role', [userMessageSchema, assistantMessageSchema]);

export const partSchema = z.object({
  id: partId,
  messageID: messageId,
  type: z.string(),
  /** Text and reasoning parts; empty in the store until the part has ended. */
  text: z.string().optional(),
  synthetic: z.boolean().optional(),
  ignored: z.boolean().optional(),
  /** Of a compaction: opencode began it, not a person. `overflow`: it then repeats the person's message, where there is an earlier one. */
  auto: z.boolean().optional(),
  overflow: z.boolean().optional(),
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
export const sessionStatusesSchema = z.record(sessionId, sessionStatusSchema);

const toolCallSchema = z.object({ messageID: messageId });

/** One that does not fit makes its whole list no answer: left out, it would look as if nothing waited. */
export const permissionSchema = z.object({
  id: idOf('per'),
  sessionID: sessionId,
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
  /** `que…`; of a form of OpenCode 2 `frm…`, or what a plugin chose. */
  id: z.string().regex(/^[0-9A-Za-z_-]{1,128}$/),
  sessionID: sessionId,
  questions: z.array(
    z.object({
      question: z.string(),
      /** A few words for it. */
      header: z.string().optional().catch(undefined),
      /** It may be left without an answer. */
      optional: z.boolean().optional(),
      options: z
        .array(z.object({ label: z.string(), description: z.string().optional().catch(undefined) }))
        .default([]),
      multiple: z.boolean().optional(),
      /** False: only what is offered is an answer. */
      custom: z.boolean().optional().catch(undefined),
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

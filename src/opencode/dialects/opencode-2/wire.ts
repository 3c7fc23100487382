import * as z from 'zod';

import { quoteName } from '../../../base/plain-text.ts';
import { RequestError } from '../../../http/request-error.ts';
import type { Dialect } from '../../../model/instance.ts';

/**
 * What this program uses of the answers of OpenCode 2, by the contract of 2.1.2 and as the preview (1.18.18 of
 * `@opencode-ai/cli-linux-x64`) gives them. Unknown fields are dropped.
 */

/** The preview differs in single keys and has fewer routes; which of them answers is told by its version, never by trying. */
export type Generation = Exclude<Dialect, 'opencode-1'>;

const idOf = (prefix: string): z.ZodString => z.string().regex(new RegExp(`^${prefix}[0-9A-Za-z_-]{1,125}$`));
const timeMs = z.number().min(0).max(8.64e15);

export const wireSessionSchema = z.object({
  id: idOf('ses'),
  title: z.string().nullish(),
  parentID: idOf('ses').nullish(),
  location: z.object({ directory: z.string() }),
  time: z.object({ created: timeMs, updated: timeMs, archived: timeMs.nullish() }),
  revert: z.object({ messageID: idOf('msg'), partID: z.string().nullish() }).nullish(),
});
export type WireSession = z.infer<typeof wireSessionSchema>;

export const wireErrorSchema = z.object({ type: z.string(), message: z.string().default('') });
export type WireError = z.infer<typeof wireErrorSchema>;

/** Its form is known by its type; of another type, as a later version may bring, no more than that is taken, and what is `kept`. */
const typed = <T extends z.ZodType>(
  known: ReadonlySet<unknown>,
  schema: T,
  other: object = {},
  kept: readonly string[] = [],
) =>
  z.preprocess((value) => {
    const type: unknown = typeof value === 'object' && value !== null && 'type' in value ? value.type : undefined;
    if (typeof type !== 'string' || known.has(type)) return value;
    return { ...other, ...Object.fromEntries(Object.entries(value ?? {}).filter(([key]) => kept.includes(key))), type };
  }, schema);

const contentSchema = z.object({
  type: z.string(),
  text: z.string().optional(),
  /** Of a tool. */
  name: z.string().optional(),
  state: z
    .object({
      status: z.string(),
      /** Text while it is being written. */
      input: z.unknown().optional(),
      error: wireErrorSchema.nullish(),
    })
    .optional(),
});

const CONTENT_TYPES = new Set(['text', 'reasoning', 'tool']);

const ENTRY_TYPES = new Set(['user', 'synthetic', 'system', 'skill', 'compaction', 'assistant', 'idle']);
/** Of an entry that is not used: no message is made of it. */
const NOT_USED = { id: 'msg_0', time: { created: 0 } };

const entrySchema = z.object({
  id: idOf('msg'),
  type: z.string(),
  time: z.object({ created: timeMs, completed: timeMs.nullish() }),
  text: z.string().optional(),
  content: z.array(typed(CONTENT_TYPES, contentSchema)).optional(),
  finish: z.string().nullish(),
  error: wireErrorSchema.nullish(),
  /** Of a step whose model failed and is asked again at that time. */
  retry: z.object({ attempt: z.number(), at: z.number().nullish(), error: wireErrorSchema }).nullish().catch(undefined),
  /** Of `idle`, the end of a busy period: `succeeded`, `failed` or `interrupted`. */
  outcome: z.string().optional(),
  /** Of a compaction: `running`, `completed` or `failed`. */
  status: z.string().optional(),
  /** Of a compaction: `auto` or `manual`. */
  reason: z.string().optional(),
  summary: z.string().optional(),
});
export type WireMessage = z.infer<typeof entrySchema>;

/** Any entry of a session: a prompt, a step of the answer, and what opencode put in. Which fields there are depends on `type`. */
export const wireMessageSchema = typed(ENTRY_TYPES, entrySchema, NOT_USED);

export const wirePermissionSchema = z.object({
  id: idOf('per'),
  sessionID: idOf('ses'),
  action: z.string(),
  resources: z.array(z.string()).default([]),
  save: z.array(z.string()).nullish(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
  source: z
    .object({ messageID: idOf('msg') })
    .nullish()
    .catch(undefined),
});
export type WirePermission = z.infer<typeof wirePermissionSchema>;

/** The preview's. */
export const wireQuestionSchema = z.object({
  id: idOf('que'),
  sessionID: idOf('ses'),
  questions: z.array(
    z.object({
      question: z.string(),
      options: z.array(z.object({ label: z.string() })).default([]),
      multiple: z.boolean().optional(),
    }),
  ),
  tool: z.object({ messageID: idOf('msg') }).optional(),
});

const fieldSchema = z.object({
  key: z.string(),
  type: z.string(),
  title: z.string().nullish(),
  description: z.string().nullish(),
  required: z.boolean().nullish(),
  hidden: z.boolean().nullish(),
  options: z.array(z.object({ value: z.string(), label: z.string() })).nullish(),
  /** False: only what is offered is taken. */
  custom: z.boolean().nullish(),
  /** It is asked only where all of these hold of the answers to other fields. */
  when: z.array(z.object({ key: z.string(), op: z.string(), value: z.unknown() })).nullish(),
  /** Of `external`: where a person does what is asked. */
  url: z.string().nullish(),
  minLength: z.number().nullish(),
  maxLength: z.number().nullish(),
  minimum: z.unknown().optional(),
  maximum: z.unknown().optional(),
  minItems: z.number().nullish(),
  maxItems: z.number().nullish(),
});
export type WireField = z.infer<typeof fieldSchema>;

/** What a person does with a field of another type is not known: it is shown, and answered in that opencode alone. */
const FIELD_TYPES = new Set(['string', 'number', 'integer', 'boolean', 'multiselect', 'external']);
const KEPT_OF_FIELDS = ['key', 'title', 'description', 'required', 'hidden', 'when'];

export const wireFormSchema = z.object({
  /** `frm_…`, or what its maker chose. */
  id: z.string().regex(/^[0-9A-Za-z_-]{1,128}$/),
  sessionID: idOf('ses'),
  title: z.string().default(''),
  fields: z.array(typed(FIELD_TYPES, fieldSchema, {}, KEPT_OF_FIELDS)),
});
export type WireForm = z.infer<typeof wireFormSchema>;

export const wireActiveSchema = z.record(idOf('ses'), z.unknown());

/** Rejects with the route and the field where the answer is of no form that is known. `label`: method and path. */
export function fitting<T>(schema: z.ZodType<T>, value: unknown, label: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path = [], message } = parsed.error.issues[0] ?? {};
  const place = path.length === 0 ? 'its top' : quoteName(path.map(String).join('.').slice(0, 200));
  throw new RequestError('malformed', `${label}: unexpected answer at ${place}: ${message}`);
}

export const dataOf = <T extends z.ZodType>(schema: T) => z.object({ data: schema });

export const pageOf = <T extends z.ZodType>(schema: T) =>
  z.object({ data: z.array(schema), cursor: z.object({ next: z.string().nullish() }).optional() });

export const wireAgentSchema = z.object({
  id: z.string(),
  mode: z.string().optional(),
  hidden: z.boolean().optional(),
});
export const wireModelSchema = z.object({ id: z.string(), providerID: z.string(), enabled: z.boolean().optional() });
export const wireFileSchema = z.object({ path: z.string(), type: z.enum(['file', 'directory']) });
export const wireDiffSchema = z.object({
  file: z.string(),
  patch: z.string().default(''),
  additions: z.number(),
  deletions: z.number(),
  status: z.enum(['added', 'deleted', 'modified']).optional(),
});

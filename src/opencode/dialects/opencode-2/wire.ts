import * as z from 'zod';

import type { Dialect } from '../../../model/instance.ts';
import { idOf, timeMs } from '../../schema.ts';

/**
 * The answers of OpenCode 2, by the contract of 2.1.2, and of the preview (1.18.18 of `@opencode-ai/cli-linux-x64`). Fields that are
 * not used are dropped.
 */

export type Generation = Exclude<Dialect, 'opencode-1'>;

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

/** Checks values of known types. Of an unknown type, which a later version may add, it keeps only `type` and the fields in `kept`. */
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
/** Stands in for the fields of an unknown type. */
const NOT_USED = { id: 'msg_0', time: { created: 0 } };

const entrySchema = z.object({
  id: idOf('msg'),
  type: z.string(),
  time: z.object({ created: timeMs, completed: timeMs.nullish() }),
  text: z.string().optional(),
  content: z.array(typed(CONTENT_TYPES, contentSchema)).optional(),
  finish: z.string().nullish(),
  error: wireErrorSchema.nullish(),
  /** The model failed and is asked again at that time. */
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

/** An entry of a session. The fields depend on `type`. */
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
  /** False: the answer must be one of the options. */
  custom: z.boolean().nullish(),
  /** Asked only if the answers to other fields meet all of these. */
  when: z.array(z.object({ key: z.string(), op: z.string(), value: z.unknown() })).nullish(),
  /** Of `external`: the page on which a person does it. */
  url: z.string().nullish(),
  minLength: z.number().nullish(),
  maxLength: z.number().nullish(),
  minimum: z.unknown().optional(),
  maximum: z.unknown().optional(),
  minItems: z.number().nullish(),
  maxItems: z.number().nullish(),
});
export type WireField = z.infer<typeof fieldSchema>;

/** A field of another type is shown, but answered only in that opencode. */
const FIELD_TYPES = new Set(['string', 'number', 'integer', 'boolean', 'multiselect', 'external']);
const KEPT_OF_FIELDS = ['key', 'title', 'description', 'required', 'hidden', 'when'];

export const wireFormSchema = z.object({
  /** `frm_…`, or chosen by its creator. */
  id: z.string().regex(/^[0-9A-Za-z_-]{1,128}$/),
  sessionID: idOf('ses'),
  title: z.string().default(''),
  fields: z.array(typed(FIELD_TYPES, fieldSchema, {}, KEPT_OF_FIELDS)),
});
export type WireForm = z.infer<typeof wireFormSchema>;

export const wireActiveSchema = z.record(idOf('ses'), z.unknown());

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

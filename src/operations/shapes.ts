import * as z from 'zod';

/**
 * The structured results of the operations, advertised as the tools' output schemas and therefore without descriptions.
 * Times are ISO 8601; remote text is cleaned and bounded before it gets here.
 */

const cut = z.object({ next_offset: z.number(), total: z.number() });

/** The endpoint in use and the others. */
const endpointFields = { via: z.string(), also: z.array(z.string()).optional() };

const sessionRef = z.object({ id: z.string(), title: z.string() });

export const instanceRow = z.object({
  name: z.string(),
  host: z.string(),
  directory: z.string().optional(),
  state: z.string(),
  reason: z.string().optional(),
  session: sessionRef.extend({ updated: z.string() }).optional(),
  version: z.string().optional(),
  ...endpointFields,
  sources: z.array(z.string()),
  waiting: z.array(z.string()).optional(),
  last_seen: z.string().optional(),
  stale_seconds: z.number().optional(),
});
export type InstanceRow = z.infer<typeof instanceRow>;

export const instanceList = z.object({
  instances: z.array(instanceRow),
  total: z.number(),
  states: z.string(),
  next_offset: z.number().optional(),
  notes: z.array(z.string()),
});
export type InstanceList = z.infer<typeof instanceList>;

const sessionRow = sessionRef.extend({
  directory: z.string(),
  updated: z.string(),
  state: z.string(),
  reason: z.string().optional(),
  parent: z.string().optional(),
});
export type SessionRow = z.infer<typeof sessionRow>;

export const sessionList = z.object({ instance: z.string(), sessions: z.array(sessionRow), more: z.boolean() });
export type SessionList = z.infer<typeof sessionList>;

const messageRow = z.object({
  id: z.string(),
  role: z.string(),
  created: z.string(),
  state: z.string(),
  text: z.string(),
  cut: cut.optional(),
  tools: z.array(z.string()).optional(),
  error: z.string().optional(),
});
export type MessageRow = z.infer<typeof messageRow>;

export const transcript = z.object({
  instance: z.string(),
  session: sessionRow,
  messages: z.array(messageRow),
  waiting: z.array(z.string()).optional(),
  before: z.string().optional(),
});
export type TranscriptView = z.infer<typeof transcript>;

export const createdSession = z.object({ instance: z.string(), session: sessionRow });
export type CreatedSession = z.infer<typeof createdSession>;

const oneTurn = z.object({
  instance: z.string(),
  session: sessionRef.optional(),
  aborted: z.boolean().optional(),
  settled: z.string().optional(),
  outcome: z.string(),
  reason: z.string().optional(),
  waiting: z.array(z.string()).optional(),
  message_id: z.string().optional(),
  also_open_in: z.array(z.string()).optional(),
  text: z.string().optional(),
  cut: cut.optional(),
  next: z.string().optional(),
});

/** `turns`: one for each instance of a call that named several. */
export const turn = oneTurn.extend({ turns: z.array(oneTurn).optional() });
export type TurnView = z.infer<typeof turn>;

export const status = z.object({
  instance: z.string(),
  state: z.string(),
  reason: z.string().optional(),
  version: z.string().optional(),
  directory: z.string().optional(),
  via: endpointFields.via.optional(),
  also: endpointFields.also,
  sessions: z.array(sessionRow.pick({ id: true, title: true, state: true, reason: true })),
  waiting: z.array(z.string()),
  elsewhere: z.array(z.string()).optional(),
});
export type StatusView = z.infer<typeof status>;

import * as z from 'zod';

import type { RecordEntry } from '../../operations/call-record.ts';

/** The part of a record entry that depends on the call's arguments and result. */
export type RecordedOutcome = Pick<RecordEntry, 'instances' | 'session' | 'outcome'>;

const targetsSchema = z.object({
  instance: z.union([z.string(), z.array(z.string())]).optional(),
  instances: z.array(z.string()).optional(),
  session_id: z.string().optional(),
});

/** The parts of a result that name instance and session; all operations use these names. */
const resultSchema = z.object({
  instance: z.string().optional(),
  /** One per instance, if there were several. */
  turns: z.array(z.object({ instance: z.string() })).optional(),
  session: z.object({ id: z.string() }).optional(),
  outcome: z.string().optional(),
});

/**
 * `data` is the call's result; undefined if it failed. Returns undefined for a call on no instance, such as a listing. Only session
 * ids are recorded, since titles are text of the conversation.
 */
export function outcomeOf(args: unknown, data: unknown, signal: AbortSignal): RecordedOutcome | undefined {
  const { instance, instances = [], session_id } = targetsSchema.safeParse(args).data ?? {};
  const named = [...(typeof instance === 'string' ? [instance] : (instance ?? [])), ...instances];
  if (named.length === 0) return undefined;
  const result = resultSchema.safeParse(data).data;
  const isId = session_id !== undefined && /^ses_[0-9A-Za-z]{1,64}$/.test(session_id);
  const resolved =
    result?.turns?.map((turn) => turn.instance) ?? [result?.instance ?? ''].filter((name) => name !== '');
  return {
    instances: resolved.length === 0 ? named : resolved,
    session: result?.session?.id ?? (isId ? session_id : undefined),
    outcome: signal.aborted ? 'cancelled' : data === undefined ? 'failed' : (result?.outcome ?? 'ok'),
  };
}

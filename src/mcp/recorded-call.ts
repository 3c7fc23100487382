import * as z from 'zod';

import type { RecordEntry } from '../call-record.ts';

/** What is recorded of a call beside who called which tool. */
export type Outcome = Pick<RecordEntry, 'instances' | 'session' | 'outcome'>;

const targetsSchema = z.object({
  instance: z.union([z.string(), z.array(z.string())]).optional(),
  instances: z.array(z.string()).optional(),
  session_id: z.string().optional(),
});

/** The parts of a result that name what it is about; operations agree on these names. */
const resultSchema = z.object({
  instance: z.string().optional(),
  session: z.object({ id: z.string() }).optional(),
  outcome: z.string().optional(),
});

export interface Targets {
  readonly instances: readonly string[];
  readonly session?: string;
}

/** What a call is meant for; undefined where it is for no instance, as a listing. A session's title is text: only an id is told. */
export function targetsOf(args: unknown): Targets | undefined {
  const { data } = targetsSchema.safeParse(args);
  const { instance, instances = [], session_id } = data ?? {};
  const named = [...(typeof instance === 'string' ? [instance] : (instance ?? [])), ...instances];
  if (named.length === 0) return undefined;
  const isId = session_id !== undefined && /^ses_[0-9A-Za-z]{1,64}$/.test(session_id);
  return { instances: named, ...(isId && { session: session_id }) };
}

/** `data` is undefined where the call failed. That its caller went away says nothing of what it began on the instance. */
export function outcomeOf(targets: Targets, data: unknown, signal: AbortSignal): Outcome {
  const result = resultSchema.safeParse(data).data;
  return {
    instances: result?.instance === undefined ? targets.instances : [result.instance],
    session: result?.session?.id ?? targets.session,
    outcome: signal.aborted ? 'cancelled' : data === undefined ? 'failed' : (result?.outcome ?? 'ok'),
  };
}

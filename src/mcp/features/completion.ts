import type { Call, Runtime } from '../../operations/runtime.ts';
import { listSessions } from '../../operations/sessions/sessions.ts';

/** The protocol's limit for one answer. */
const MAX_VALUES = 100;

interface Completion {
  readonly values: readonly string[];
  readonly total: number;
  readonly hasMore: boolean;
}

/** Names that start with `value`, then names that contain it. Ignores case. */
export async function completeInstance(runtime: Runtime, value: string): Promise<Completion> {
  await runtime.fleet.ready();
  const names = runtime.fleet.snapshot().instances.map(({ name }) => name);
  const wanted = value.toLowerCase();
  const begin = names.filter((name) => name.toLowerCase().startsWith(wanted));
  const contain = names.filter((name) => !begin.includes(name) && name.toLowerCase().includes(wanted));
  return completion([...begin, ...contain]);
}

/** Session ids, by the beginning of the id or a part of the title. Empty if the instance cannot be reached. */
export async function completeSession(
  runtime: Runtime,
  instance: string | undefined,
  value: string,
  call: Call,
): Promise<Completion> {
  if (instance === undefined || instance === '') return completion([]);
  try {
    const recent = (await listSessions(runtime, { instance }, call)).data.sessions;
    const wanted = value.toLowerCase();
    const fitting = recent.filter(({ id, title }) => id.startsWith(value) || title.toLowerCase().includes(wanted));
    if (fitting.length > 0 || value === '') return completion(fitting.map(({ id }) => id));
    const titled = await listSessions(runtime, { instance, search: value }, call);
    return completion(titled.data.sessions.map(({ id }) => id));
  } catch {
    return completion([]);
  }
}

export function completion(all: readonly string[]): Completion {
  return { values: all.slice(0, MAX_VALUES), total: all.length, hasMore: all.length > MAX_VALUES };
}

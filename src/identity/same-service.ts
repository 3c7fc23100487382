import { LinkedAbort } from '../base/linked-abort.ts';
import { type Connection, requestJson } from '../http/exchange.ts';
import { createApi } from '../opencode/dialects/dialects.ts';
import type { EventStream } from '../opencode/events.ts';
import type { ProofDeps } from './proof.ts';

const MAX_BYTES = 256 * 1024;
/** Of a title, say. */
const MAX_STRING_BYTES = 4096;

/**
 * Whether two ways lead to one OpenCode 2: what answers at both names the same process and version, and has the same newest
 * session. Not by the process alone, whose number another machine has too; and neither of these is there on the preview.
 * It changes nothing and loads no directory. Never rejects.
 */
export async function isSameService(
  one: Connection,
  other: Connection,
  { deadlineMs }: Pick<ProofDeps, 'deadlineMs'>,
  signal: AbortSignal,
): Promise<boolean> {
  const limits = { timeoutMs: deadlineMs, maxBytes: MAX_BYTES, maxStringBytes: MAX_STRING_BYTES, signal };
  const both = (path: string): Promise<readonly unknown[]> =>
    Promise.all([one, other].map((connection) => requestJson(connection, path, limits)));
  try {
    return (
      areEqual((await both('/api/info')).map(processIn)) && areEqual((await both('/api/session?limit=1')).map(newestIn))
    );
  } catch {
    return false;
  }
}

/** Nothing is equal to nothing here. */
function areEqual([one, other]: readonly (string | undefined)[]): boolean {
  return one !== undefined && one === other;
}

function processIn(info: unknown): string | undefined {
  const { pid, version } = fields(info);
  return Number.isInteger(pid) && typeof version === 'string' ? `${String(pid)} ${version}` : undefined;
}

function newestIn(page: unknown): string | undefined {
  const { data } = fields(page);
  const { id } = fields(Array.isArray(data) ? data[0] : undefined);
  return typeof id === 'string' ? id : undefined;
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}

/** Of each stream; a turn that streams has a hundred in a second. */
const MAX_HEARD = 10_000;

/**
 * Whether two ways lead to one process of OpenCode 2's preview: what it broadcasts has the same id on every connection to it, and no
 * other process has it, not even one of the same store. It says nothing of itself, and no call makes it speak without loading a
 * directory or leaving a session behind; so only what happens there anyway proves it. True is proof; false is only silence. Never rejects.
 */
export async function hearSame(
  one: Connection,
  other: Connection,
  { clock, deadlineMs }: ProofDeps,
  signal: AbortSignal,
): Promise<boolean> {
  const listening = new LinkedAbort(signal);
  void clock.sleep(deadlineMs, listening.signal).then(() => listening.abort());
  const heard = new Map<string, number>();
  const listen = async (stream: EventStream, by: number): Promise<boolean> => {
    let count = 0;
    for await (const { id } of stream) {
      if (id === undefined || (count += 1) > MAX_HEARD) continue;
      if ((heard.get(id) ?? by) !== by) return true;
      heard.set(id, by);
    }
    return false;
  };
  try {
    const streams = await Promise.all(
      [one, other].map((way) => createApi('opencode-2-preview', way).events('', listening.signal)),
    );
    return await Promise.race(streams.map((stream, by) => listen(stream, by).catch(() => false)));
  } catch {
    return false;
  } finally {
    listening.end();
  }
}

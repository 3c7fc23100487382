import { fieldsOf } from '../base/errors.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { type Connection, requestJson } from '../http/exchange.ts';
import { createApi } from '../opencode/dialects/dialects.ts';
import type { EventStream } from '../opencode/events.ts';
import type { ProofDeps } from './proof.ts';

const MAX_BYTES = 256 * 1024;
const MAX_STRING_BYTES = 4096;

/**
 * Whether two connections lead to one OpenCode 2: both report the same process, version and newest session. Another machine may have
 * the same pid, so the pid alone does not count. Changes nothing and loads no directory. Never rejects.
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

/** False for two undefined values. */
function areEqual([one, other]: readonly (string | undefined)[]): boolean {
  return one !== undefined && one === other;
}

function processIn(info: unknown): string | undefined {
  const { pid, version } = fieldsOf(info);
  return Number.isInteger(pid) && typeof version === 'string' ? `${String(pid)} ${version}` : undefined;
}

function newestIn(page: unknown): string | undefined {
  const { data } = fieldsOf(page);
  const { id } = fieldsOf(Array.isArray(data) ? data[0] : undefined);
  return typeof id === 'string' ? id : undefined;
}

/** Events read of each stream; a streaming turn emits a hundred per second. */
const MAX_EVENTS = 10_000;

/**
 * Whether two connections lead to one preview of OpenCode 2: an event has the same id on every connection to its process, and on no
 * other, not even one on the same store. No call makes the preview emit an event without loading a directory or leaving a session
 * behind, so this waits for events of a running turn. True is proof, false is only silence. Never rejects.
 */
export async function isSameByEvents(
  one: Connection,
  other: Connection,
  { clock, deadlineMs }: ProofDeps,
  signal: AbortSignal,
): Promise<boolean> {
  const listening = new LinkedAbort(signal);
  void clock.sleep(deadlineMs, listening.signal).then(() => listening.abort());
  const seen = new Map<string, number>();
  const listen = async (stream: EventStream, by: number): Promise<boolean> => {
    let count = 0;
    for await (const { id } of stream) {
      if (id === undefined || (count += 1) > MAX_EVENTS) continue;
      if ((seen.get(id) ?? by) !== by) return true;
      seen.set(id, by);
    }
    return false;
  };
  try {
    const streams = await Promise.all(
      [one, other].map((connection) => createApi('opencode-2-preview', connection).events('', listening.signal)),
    );
    return await Promise.race(streams.map((stream, by) => listen(stream, by).catch(() => false)));
  } catch {
    return false;
  } finally {
    listening.end();
  }
}

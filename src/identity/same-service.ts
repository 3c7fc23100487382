import { type Connection, requestJson } from '../http/exchange.ts';
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

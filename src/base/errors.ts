import { sentence } from './plain-text.ts';

/** Fits a line of a log or a listing. */
const MAX_REASON_CHARS = 300;

/** The error's message on one line, bounded and safe to show. */
export function reasonOf(error: unknown): string {
  return sentence(messageOf(error), MAX_REASON_CHARS);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The code of a system error, or undefined. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The parsed JSON, or undefined if `text` is not JSON. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** The permission bits as `chmod` takes them: `0600`. */
export function octalMode(mode: number | bigint): string {
  return (Number(mode) & 0o7777).toString(8).padStart(4, '0');
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The properties of an object; none of anything else. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {};
}

/** Advice for files of another user. Opening them to others would only make the next check refuse them. */
export function runAs({ uid, gid }: { readonly uid: number | bigint; readonly gid: number | bigint }): string {
  return `run this as uid ${uid} (docker run --user ${uid}:${gid})`;
}

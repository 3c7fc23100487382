import { sentence } from './plain-text.ts';

/** A line of a log or a listing holds no more. */
const MAX_REASON_CHARS = 300;

/** What an error says, on one line, bounded and safe to show. */
export function reasonOf(error: unknown): string {
  return sentence(messageOf(error), MAX_REASON_CHARS);
}

/** What an error says, or whatever was thrown in place of one. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The code of a system error, or undefined. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The value of a JSON text, or undefined where it is none. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The properties of an object; none of anything else. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {};
}

/** What helps where files are another user's: opening them to others would only have the next check refuse them. */
export function runAs({ uid, gid }: { readonly uid: number | bigint; readonly gid: number | bigint }): string {
  return `run this as uid ${uid} (docker run --user ${uid}:${gid})`;
}

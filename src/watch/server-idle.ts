import { type Connection, requestJson } from '../http/exchange.ts';
import type { Dialect, Instance } from '../model/instance.ts';
import { serverStatusOf } from '../probing/answers.ts';

/** One line per running session; empty if nothing runs. */
const MAX_BYTES = 64 * 1024;
const LIMIT_MS = 5000;

/** Whether nothing runs in any known directory: one small request for each, or one for a whole OpenCode 2. False if one is not answered. */
export async function isServerIdle(
  dialect: Dialect,
  connection: Connection,
  instances: readonly Instance[],
  signal: AbortSignal,
): Promise<boolean> {
  const paths =
    dialect === 'opencode-1'
      ? instances.map(({ directory = '' }) => `/session/status?directory=${encodeURIComponent(directory)}`)
      : ['/api/session/active'];
  const limits = { timeoutMs: LIMIT_MS, maxBytes: MAX_BYTES, signal };
  try {
    const answers = await Promise.all(paths.map((path) => requestJson(connection, path, limits)));
    return answers.every((answer) =>
      dialect === 'opencode-1'
        ? serverStatusOf(answer)?.running.length === 0
        : isEmpty((answer as { data?: unknown }).data),
    );
  } catch {
    return false;
  }
}

function isEmpty(active: unknown): boolean {
  return typeof active === 'object' && active !== null && Object.keys(active).length === 0;
}

import type { SessionQuery } from '../../opencode/api.ts';
import type { SessionStatus } from '../../opencode/schema.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Connected } from '../runtime.ts';

/** Which sessions belong to an instance: those of its server's project, or, for another directory, only that directory's. */
export function scopeOf({ directory, serverDirectory }: Connected): Pick<SessionQuery, 'directory'> {
  return directory === serverDirectory ? {} : { directory };
}

/** Whether it is an OpenCode 2 service as a whole: then callers must name a session or one of its directories. */
export function isWholeService({ directory }: Pick<Connected, 'directory'>): boolean {
  return directory === '';
}

export function sessionNeeded({ instance }: Pick<Connected, 'instance'>, undone?: string): OperationError {
  return new OperationError(
    ({ session, sessions }) =>
      `${quoteName(instance.name)} is an OpenCode 2 service as a whole${undone === undefined ? '' : `; ${undone}`}. Give ${session} (${sessions} shows them), or name the instance of one directory.`,
  );
}

/** The status of sessions that are not idle, by session id. */
export async function statusesIn(
  { api }: Connected,
  directories: readonly string[],
): Promise<ReadonlyMap<string, SessionStatus>> {
  const maps = await Promise.all(directories.map((directory) => api.statuses(directory)));
  return new Map(maps.flatMap((map) => [...map]));
}

import type { SessionQuery } from '../../opencode/api.ts';
import type { SessionStatus } from '../../opencode/schema.ts';
import type { Connected } from '../runtime.ts';

/** Which sessions are an instance's: those of its server's project, or those of the one directory that is not the server's own. */
export function scopeOf({ directory, serverDirectory }: Connected): Pick<SessionQuery, 'directory'> {
  return directory === serverDirectory ? {} : { directory };
}

/** What is not idle, by session id. */
export async function statusesIn(
  { api }: Connected,
  directories: readonly string[],
): Promise<ReadonlyMap<string, SessionStatus>> {
  const maps = await Promise.all(directories.map((directory) => api.statuses(directory)));
  return new Map(maps.flatMap((map) => [...map]));
}

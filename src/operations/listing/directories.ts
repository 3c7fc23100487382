import type { Session, SessionStatus } from '../../opencode/schema.ts';
import type { Connected } from '../runtime.ts';

/** opencode loads the plugins and MCP servers of a directory that it is asked about: only where somebody worked just now it has done so already. */
const RECENT_MS = 10 * 60_000;
const MAX_OTHERS = 4;
const LOOKED_AT = 30;

/**
 * The directories that an instance works in: its own, and those of its sessions that were used in the ten minutes
 * before its latest one. Status, permissions and questions are told by directory.
 */
export async function workDirectories(connected: Connected): Promise<readonly string[]> {
  return directoriesOf(connected, await recentSessions(connected));
}

/** Those of the instance's project that were used last, the latest first; sub-agents' too. */
export async function recentSessions({ api }: Connected): Promise<readonly Session[]> {
  return await api.sessions({ limit: LOOKED_AT });
}

/** As above, from sessions that were listed already. */
export function directoriesOf({ directory }: Connected, sessions: readonly Session[]): readonly string[] {
  const latest = Math.max(0, ...sessions.map(({ time }) => time.updated));
  const recent = sessions.filter(({ time }) => latest - time.updated <= RECENT_MS).map((session) => session.directory);
  const others = [...new Set(recent)].filter((one) => one !== directory);
  return [directory, ...others.slice(0, MAX_OTHERS)];
}

/** What is not idle, by session id. */
export async function statusesIn(
  { api }: Connected,
  directories: readonly string[],
): Promise<ReadonlyMap<string, SessionStatus>> {
  const maps = await Promise.all(directories.map((directory) => api.statuses(directory)));
  return new Map(maps.flatMap((map) => [...map]));
}

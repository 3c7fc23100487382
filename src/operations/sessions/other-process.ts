import type { Session } from '../../opencode/schema.ts';
import { quoteName } from '../answer.ts';
import { type CallSpan, connectTo, type Connected, type Runtime } from '../runtime.ts';

/**
 * Processes with one home share sessions, but each knows only its own status; a prompt or an
 * abort given to the wrong one is answered twice or does nothing. Says which other instance of the
 * same machine and project works on `session` now, if one does.
 */
export async function findOtherProcess(
  runtime: Runtime,
  { instance, worktree }: Connected,
  session: Session,
  call: CallSpan,
): Promise<string | undefined> {
  const others = runtime.fleet
    .snapshot()
    .instances.filter(
      (other) =>
        other.key === other.server.key &&
        other.key !== instance.server.key &&
        other.host === instance.host &&
        other.server.endpoints.some(({ result }) => result.status === 'healthy' && result.worktree === worktree),
    );
  const found = await Promise.all(
    others.map(async (other) => {
      try {
        const { api } = await connectTo(runtime, other, call);
        // Only a directory of a session of its own may be named to it.
        const shared = await api.session(session.id);
        if (shared === undefined) return undefined;
        return (await api.statuses(shared.directory)).has(session.id) ? other.name : undefined;
      } catch {
        return undefined;
      }
    }),
  );
  const elsewhere = found.find((name) => name !== undefined);
  return elsewhere === undefined ? undefined : quoteName(elsewhere);
}

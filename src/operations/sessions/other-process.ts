import { hostKey } from '../../identity/default-name.ts';
import { isHealthy } from '../../identity/merge.ts';
import type { Instance, ProbedEndpoint } from '../../model/instance.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Session } from '../../opencode/schema.ts';
import { RECENT_MS } from '../../probing/list-sessions.ts';
import { quoteName } from '../answer.ts';
import { type CallSpan, connectTo, type Connected, type Runtime } from '../runtime.ts';

/** Each is asked for the session first, which only processes of the same home have. */
const MAX_ASKED = 16;

/**
 * The name of another opencode on the same machine that works on `session` now, if any. Processes with one home share sessions, but
 * each knows only its own status: a prompt or an abort sent to the wrong one is answered twice or does nothing. It may be of
 * another project, with a terminal attached to this directory.
 *
 * @param old whether to ask processes of other projects even for a session that was not used lately; they load its directory
 */
export async function findOtherProcess(
  runtime: Runtime,
  { instance, worktree }: Connected,
  session: Session,
  call: CallSpan,
  old: 'too' | 'not' = 'too',
): Promise<string | undefined> {
  const isOfProject = (one: Instance): boolean =>
    healthy(one).some(({ result }) => result.status === 'healthy' && result.worktree === worktree);
  const mayLoad = old === 'too' || runtime.clock.now() - session.time.updated < RECENT_MS;
  const others = othersHere(runtime, instance)
    .filter((other) => mayLoad || isOfProject(other))
    .toSorted((one, other) => Number(isOfProject(other)) - Number(isOfProject(one)))
    .slice(0, MAX_ASKED);
  const found = await Promise.all(
    others.map(async (other) => {
      try {
        const { api, dialect } = await connectTo(runtime, other, call);
        // OpenCode 2 answers for all its directories without loading any.
        if (dialect !== 'opencode-1') return (await api.statuses('')).has(session.id) ? other.name : undefined;
        // A request may only name a directory of the process's own sessions.
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

/**
 * Shows in the terminals of other opencodes of this machine and home with the session's directory open that a message was sent:
 * they share the session, but do not show the turn. Resolves with their names; never rejects.
 */
export async function notifyOtherTerminals(
  runtime: Runtime,
  { instance }: Connected,
  session: Session,
  call: CallSpan,
): Promise<readonly string[]> {
  const others = othersHere(runtime, instance).filter(({ directory }) => directory === session.directory);
  const message = `A message was sent to session ${JSON.stringify(singleLine(session.title, 60))} through ${quoteName(instance.name)}; opencode shows it here once it is started again (opencode -c)`;
  const names = others.slice(0, MAX_ASKED).map(async (other): Promise<string[]> => {
    try {
      const { api } = await connectTo(runtime, other, call);
      // Another home has no such session.
      if ((await api.session(session.id)) === undefined) return [];
      await api.showToast(session.directory, message).catch(() => {});
      return [other.name];
    } catch {
      return [];
    }
  });
  return (await Promise.all(names)).flat();
}

/** The other healthy servers on the instance's machine. */
function othersHere(runtime: Runtime, instance: Instance): readonly Instance[] {
  const isLocal = (one: Instance): boolean =>
    healthy(one).some(({ candidate }) => candidate.endpoint.route === 'loopback');
  return runtime.fleet
    .snapshot()
    .instances.filter(
      (other) =>
        other.key === other.server.key &&
        other.key !== instance.server.key &&
        healthy(other).length > 0 &&
        (hostKey(other.host) === hostKey(instance.host) || (isLocal(other) && isLocal(instance))),
    );
}

function healthy({ server }: Instance): readonly ProbedEndpoint[] {
  return server.endpoints.filter(isHealthy);
}

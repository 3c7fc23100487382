import { hostKey } from '../../identity/default-name.ts';
import { isHealthy } from '../../identity/merge.ts';
import type { Instance, ProbedEndpoint } from '../../model/instance.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Session } from '../../opencode/schema.ts';
import { RECENT_MS } from '../../probing/list-sessions.ts';
import { quoteName } from '../answer.ts';
import { type CallSpan, connectTo, type Connected, type Runtime } from '../runtime.ts';

/** Each is asked for the session first, which only those of the same home have. Nobody runs more on one machine. */
const MAX_ASKED = 16;

/**
 * Processes with one home share sessions, but each knows only its own status; a prompt or an
 * abort given to the wrong one is answered twice or does nothing. Says which other opencode of the same machine works on `session`
 * now, if one does: it can be one of another project, with a terminal attached to this one's directory.
 *
 * @param old whether one of another project is asked for a session that was not used lately, too, which loads its directory there
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
        // OpenCode 2 answers for all its directories at once, and loads none for it.
        if (dialect !== 'opencode-1') return (await api.statuses('')).has(session.id) ? other.name : undefined;
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

/**
 * Tells the terminals of other opencodes of this machine and home, which have the session's directory open, that a message went into
 * it here: they share the session, and show nothing of the turn. Resolves with their names; never rejects.
 */
export async function tellOtherTerminals(
  runtime: Runtime,
  { instance }: Connected,
  session: Session,
  call: CallSpan,
): Promise<readonly string[]> {
  const others = othersHere(runtime, instance).filter(({ directory }) => directory === session.directory);
  const message = `A message was sent to session ${JSON.stringify(singleLine(session.title, 60))} through ${quoteName(instance.name)}; opencode shows it here once it is started again (opencode -c)`;
  const told = others.slice(0, MAX_ASKED).map(async (other): Promise<string[]> => {
    try {
      const { api } = await connectTo(runtime, other, call);
      // In another home there is no such session.
      if ((await api.session(session.id)) === undefined) return [];
      await api.showToast(session.directory, message).catch(() => {});
      return [other.name];
    } catch {
      return [];
    }
  });
  return (await Promise.all(told)).flat();
}

/** The other servers of an instance's machine that answer, each in its own directory. */
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

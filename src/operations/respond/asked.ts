import type { Approver } from '../../config/settings.ts';
import { namesOf } from '../../identity/naming.ts';
import type { Instance } from '../../model/instance.ts';
import type { OpencodeApi } from '../../opencode/api.ts';
import type { Session, SessionStatus } from '../../opencode/schema.ts';
import type { WaitingRequest } from '../../opencode/waiting.ts';
import { listWaiting, stillWaits } from '../../turns/waiting.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Runtime } from '../runtime.ts';
import { approverOf } from './approval.ts';
import { requestLine } from './waiting.ts';

/** A request that waits for a reply, and its session. */
export interface Asked {
  readonly waiting: WaitingRequest;
  /** The directory that lists it and takes its answer. */
  readonly directory: string;
  /** The session that a person knows: for a sub-agent's request, the root session. */
  readonly session: Session;
  readonly ofSubAgent: boolean;
}

/** Sub-agents run in sessions of their own, a few levels deep at most. */
const MAX_DEPTH = 8;
/** Each costs one or two HTTP requests, and a line of the result. */
const MAX_ASKED = 20;

/** The waiting requests, and the number of those past the limit. */
export interface AllAsked {
  readonly asked: readonly Asked[];
  readonly left: number;
}

/**
 * The requests that wait in these directories, or the one with `requestId`. Leaves out those of sessions without a status, and those of
 * aborted turns: opencode (1.18.33) keeps listing them.
 */
export async function listAsked(
  { api }: { readonly api: OpencodeApi },
  directories: readonly string[],
  statuses: ReadonlyMap<string, SessionStatus>,
  requestId?: string,
): Promise<AllAsked> {
  const listed = await Promise.all(
    directories.map(async (directory) =>
      (await listWaiting(api, directory))
        .filter(({ request }) => statuses.has(request.sessionID) && (requestId ?? request.id) === request.id)
        .map((waiting) => ({ waiting, directory })),
    ),
  );
  const all = listed.flat();
  const asked = await Promise.all(
    all.slice(0, MAX_ASKED).map(async ({ waiting, directory }): Promise<Asked[]> => {
      const [session, isWaiting] = await Promise.all([
        rootOf(api, waiting.request.sessionID),
        stillWaits(api, waiting),
      ]);
      if (session === undefined || !isWaiting) return [];
      const ofSubAgent = session.id !== waiting.request.sessionID;
      return [{ waiting, directory: directory || session.directory, session, ofSubAgent }];
    }),
  );
  return { asked: asked.flat(), left: Math.max(0, all.length - MAX_ASKED) };
}

/** Who may answer the request. Rules may use any name of the server, or of the directory in which the request waits. */
export function approverFor(
  { fleet, approvals }: Runtime,
  instance: Instance,
  { waiting, directory }: Pick<Asked, 'waiting' | 'directory'>,
): Approver {
  const { instances, resting } = fleet.snapshot();
  const { server } = instance;
  const isMeant = (one: Instance): boolean =>
    one.server.key === server.key && (one.key === server.key || one.directory === directory);
  const shown = [instance, ...[...instances, ...resting].filter(isMeant)];
  return approverOf(approvals, namesOf(server, shown, directory), waiting);
}

export function askedLine({ waiting, ofSubAgent }: Asked): string {
  return requestLine(waiting, ofSubAgent);
}

export function askedLines({ asked, left }: AllAsked): string[] {
  return [...asked.map(askedLine), ...(left > 0 ? [`${left} more`] : [])];
}

/** `what` describes the request, or is just `that`. */
export function goneLine(name: string, what: string): string {
  return `${quoteName(name)} does not wait for ${what} any more: it was settled elsewhere, or aborted.`;
}

export function goneError({ name }: Pick<Instance, 'name'>, asked: Asked): OperationError {
  return new OperationError(`${goneLine(name, askedLine(asked))} Nothing was answered by this call.`);
}

async function rootOf(api: OpencodeApi, sessionId: string): Promise<Session | undefined> {
  let session = await api.session(sessionId);
  for (let depth = 0; session?.parentID !== undefined && depth < MAX_DEPTH; depth += 1) {
    const parent: Session | undefined = await api.session(session.parentID);
    if (parent === undefined) break;
    session = parent;
  }
  return session;
}

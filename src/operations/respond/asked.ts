import type { Approver } from '../../config/settings.ts';
import { namesOf } from '../../identity/naming.ts';
import type { Instance } from '../../model/instance.ts';
import type { OpencodeApi } from '../../opencode/api.ts';
import type { Session, SessionStatus } from '../../opencode/schema.ts';
import type { WaitingRequest } from '../../opencode/waiting.ts';
import { listWaiting, stands } from '../../turns/waiting.ts';
import { OperationError, quoteName } from '../answer.ts';
import type { Runtime } from '../runtime.ts';
import { approverOf } from './approval.ts';
import { requestLine } from './waiting.ts';

/** A request that an instance waits with, and whose it is. */
export interface Asked {
  readonly waiting: WaitingRequest;
  /** Where it is listed and answered. */
  readonly directory: string;
  /** The session that a person knows: of a sub-agent's request the one that it works for. */
  readonly session: Session;
  readonly ofSubAgent: boolean;
}

/** Sub-agents run in sessions of their own, a few levels deep at most. */
const MAX_DEPTH = 8;
/** Each costs a request or two, and a line of the result; nobody has as many waiting at one instance. */
const MAX_ASKED = 20;

/** What waits, and how many more there are that were not looked into. */
export interface AllAsked {
  readonly asked: readonly Asked[];
  readonly left: number;
}

/** What waits for somebody in these directories; only the request with `requestId` where one is given. What an abort left behind is listed by opencode (1.18.33), but not here. */
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
      const [session, isWaiting] = await Promise.all([rootOf(api, waiting.request.sessionID), stands(api, waiting)]);
      if (session === undefined || !isWaiting) return [];
      const ofSubAgent = session.id !== waiting.request.sessionID;
      return [{ waiting, directory: directory || session.directory, session, ofSubAgent }];
    }),
  );
  return { asked: asked.flat(), left: Math.max(0, all.length - MAX_ASKED) };
}

/** Who settles it. Rules may name the opencode, and the directory that waits, by whichever of its names the caller came there. */
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

/** A line for each, and one that says how many more there are. */
export function askedLines({ asked, left }: AllAsked): string[] {
  return [...asked.map(askedLine), ...(left > 0 ? [`${left} more`] : [])];
}

export function goneError({ name }: Pick<Instance, 'name'>, asked: Asked): OperationError {
  return new OperationError(
    `${quoteName(name)} does not wait for ${askedLine(asked)} any more: it was settled elsewhere, or aborted. Nothing was answered by this call.`,
  );
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

import type { Session } from '../../opencode/schema.ts';
import { type Answer, OperationError, quoteName, sessionRef } from '../answer.ts';
import { findOtherProcess } from '../sessions/other-process.ts';
import { makeChange, unseenLine } from './change.ts';
import { type Call, type CallSpan, connect, type Connected, type Runtime } from '../runtime.ts';
import { findSession, latestSession } from '../sessions/session-query.ts';
import type { TurnView } from '../shapes.ts';
import { listWaiting, SessionFamily } from '../../turns/waiting.ts';
import { reportUndone } from './undone.ts';

/** opencode ends a turn within a fraction of a second; a tool that ignores its abort signal takes longer. */
const VERIFY_LIMIT_MS = 10_000;

/** Aborts what runs in a session and checks that it stopped: opencode answers true in any case. */
export async function abortSession(
  runtime: Runtime,
  input: { readonly instance: string; readonly session_id?: string | undefined },
  call: Call,
): Promise<Answer<TurnView>> {
  const connected = await connect(runtime, input.instance, call);
  const session =
    input.session_id === undefined ? await runningSession(connected) : await findSession(connected, input.session_id);
  if (session === undefined) {
    throw new OperationError(
      ({ status }) =>
        `Nothing runs on ${quoteName(connected.instance.name)}, so there is nothing to abort; see ${status} for what it does.`,
    );
  }
  const ran = await reportUndone(connected.instance.name, 'nothing was aborted', () =>
    abortVerified(runtime, connected, session, call),
  );
  const data: TurnView = {
    instance: connected.instance.name,
    session: sessionRef(session),
    aborted: ran,
    outcome: ran ? 'aborted' : 'idle',
  };
  const head = `${quoteName(data.instance)}, session ${session.id} ${JSON.stringify(data.session?.title)}`;
  return {
    data,
    text: ran ? `${head}: aborted; its status confirms that it is idle.` : `${head}: idle; nothing was running.`,
  };
}

/** False if nothing ran. @throws {OperationError | CallOver} it still runs, it runs in another process, or the call was over first */
export async function abortVerified(
  runtime: Runtime,
  connected: Connected,
  session: Session,
  call: CallSpan,
): Promise<boolean> {
  const { api, instance } = connected;
  const name = quoteName(instance.name);
  const runs = async (): Promise<boolean> => (await api.statuses(session.directory)).has(session.id);
  if (!(await runs())) {
    const elsewhere = await findOtherProcess(runtime, connected, session, call);
    if (elsewhere === undefined) return false;
    throw new OperationError(
      `Session ${session.id} runs in ${elsewhere}, which shares its sessions with ${name}; abort it there.`,
    );
  }
  const made = await makeChange(runtime, {
    make: () => api.abort(session.id),
    shows: async () => !(await runs()),
    limitMs: VERIFY_LIMIT_MS,
    signal: call.signal,
  });
  if (made.unseen !== undefined) {
    const line = unseenLine(name, made, `session ${session.id} still runs`);
    throw new OperationError(
      ({ status, again }) => `Abort failed: ${line}. See ${status}, and ${again} if it still runs.`,
    );
  }
  // The abort has succeeded in any case: a leftover request is never listed as waiting.
  await rejectLeft(connected, session).catch(() => {});
  return true;
}

/** Rejects the requests of the aborted turn, which opencode (1.18.33) would go on listing, in its terminal too. */
async function rejectLeft({ api }: Connected, { id, directory }: Session): Promise<void> {
  const family = new SessionFamily(id);
  // A session that does not run waits for nothing, though its message is marked as aborted only a moment later.
  const [all, statuses] = await Promise.all([listWaiting(api, directory), api.statuses(directory)]);
  for (const waiting of all) {
    const { request } = waiting;
    if (statuses.has(request.sessionID) || !(await family.includes(request.sessionID, api))) continue;
    if (waiting.kind === 'permission') await api.replyPermission(directory, request.id, 'reject');
    else await api.rejectQuestion(directory, request.id);
  }
}

/** The most recent running session, else the latest one. */
async function runningSession(connected: Connected): Promise<Session | undefined> {
  const { api, directory } = connected;
  const statuses = await api.statuses(directory);
  const candidates = await api.sessions({ directory, rootsOnly: true, limit: 100 });
  return candidates.find(({ id }) => statuses.has(id)) ?? (await latestSession(connected));
}

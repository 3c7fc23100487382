import type { Session } from '../../opencode/schema.ts';
import { quoteShort, sentence, singleLine } from '../../base/plain-text.ts';
import { type Answer, formatAge, OperationError, quoteName } from '../answer.ts';
import { askedLine, listAsked } from '../respond/asked.ts';
import { isWholeService, scopeOf, statusesIn } from '../listing/directories.ts';
import { findOtherProcess } from './other-process.ts';
import { type Call, connect, type Connected, type Runtime } from '../runtime.ts';
import { type SessionState, sessionState } from './session-state.ts';
import { madeSession } from '../send/change.ts';
import { stallsAmong } from '../send/stalls.ts';
import { sessionsAtRest } from './sessions-at-rest.ts';
import type { CreatedSession, SessionList, SessionRow } from '../shapes.ts';
import { reportUndone } from '../send/undone.ts';

const LISTED = 30;
const MAX_TITLE = 200;
const INTERRUPTED =
  '(interrupted: the last turn never completed; the instance was restarted, or another process of the same home works on it)';

const UNKNOWN =
  '(unknown: its directory was not used in the last ten minutes, and asking would load its plugins; read with the session_id asks)';

const UNKNOWN_OF_PREVIEW =
  '(unknown: it does not run, and this preview of OpenCode 2 shows how it ended only by loading its directory; read with the session_id asks)';

/** The instance's sessions, most recently updated first. */
export async function listSessions(
  runtime: Runtime,
  input: { readonly instance: string; readonly search?: string | undefined },
  call: Call,
): Promise<Answer<SessionList>> {
  const connected = await connect(runtime, input.instance, call);
  const found = await connected.api.sessions({
    ...scopeOf(connected),
    rootsOnly: true,
    limit: LISTED + 1,
    ...(input.search ? { search: input.search } : {}),
  });
  const sessions = found.slice(0, LISTED);
  const stateOf = await statesOf(runtime, connected, sessions, call);
  const data: SessionList = {
    instance: connected.instance.name,
    sessions: sessions.map((session) => sessionRow(session, stateOf(session))),
    more: found.length > LISTED,
  };
  const name = quoteName(data.instance);
  if (sessions.length === 0) {
    const what = input.search ? ' with that title' : '';
    return { data, text: `${name} has no sessions${what}; create_session or send starts one.` };
  }
  const shows = (state: string): boolean => data.sessions.some((row) => row.state === state);
  const lines = [
    `${data.sessions.length} sessions of ${name}, most recent first:`,
    ...data.sessions.map((row) => renderSession(row, runtime.clock.now())),
    ...(shows('interrupted') ? [INTERRUPTED] : []),
    ...(shows('unknown') ? [connected.dialect === 'opencode-1' ? UNKNOWN : UNKNOWN_OF_PREVIEW] : []),
    ...(data.more ? ['(there are more; give search to find one by its title)'] : []),
  ];
  return { data, text: lines.join('\n') };
}

/** The states of these sessions; `unknown` if asking would load a directory. */
async function statesOf(
  runtime: Runtime,
  connected: Connected,
  sessions: readonly Session[],
  call: Call,
): Promise<(session: Session) => SessionState> {
  const { api, directory, dialect } = connected;
  const nowMs = runtime.clock.now();
  const isUsed = (one: string): boolean => sessions.some((session) => session.directory === one);
  // OpenCode 2 reports the status of all its sessions at once.
  const isOpencode1 = dialect === 'opencode-1';
  const others =
    isOpencode1 && sessions.some((session) => session.directory !== directory)
      ? (await runtime.fleet.surveyServer(connected, call.signal)).asked
      : [];
  const directories = [directory, ...others.filter(isUsed)];
  const statuses = await statusesIn(connected, directories);
  const { asked } = await listAsked(connected, directories, statuses);
  const isAsked = ({ id, directory: own }: Session): boolean =>
    isOpencode1 ? directories.includes(own) : statuses.has(id) || dialect === 'opencode-2';
  const atRest = await sessionsAtRest(
    sessions.filter((session) => !statuses.has(session.id) && isAsked(session)),
    {
      api,
      statuses: () => statusesIn(connected, directories),
      otherProcessOf: (session) => findOtherProcess(runtime, connected, session, call, 'not'),
      nowMs,
    },
  );
  const stalls = await stallsAmong(runtime, connected, statuses.keys());
  return (one) => {
    if (!isAsked(one)) return { state: 'unknown' };
    const waiting = asked.filter(({ session }) => session.id === one.id).map(askedLine);
    const facts = { waiting, stalledSinceMs: stalls.get(one.id), nowMs };
    return briefly(atRest.get(one.id)) ?? sessionState(statuses.get(one.id), facts);
  };
}

/** The reason is in the footer, once. */
function briefly(state: SessionState | undefined): SessionState | undefined {
  return state?.state === 'interrupted' ? { state: 'interrupted' } : state;
}

export async function createSession(
  runtime: Runtime,
  input: { readonly instance: string; readonly title?: string | undefined; readonly directory?: string | undefined },
  call: Call,
): Promise<Answer<CreatedSession>> {
  const title = input.title === undefined ? undefined : singleLine(input.title, MAX_TITLE).trim();
  if (title === '')
    throw new OperationError('title is empty; leave it out and opencode makes one from the first message.');
  const connected = await connect(runtime, input.instance, call);
  const { api, instance } = connected;
  const created = await reportUndone(instance.name, 'no session was created', async () => {
    const directory = await directoryFor(connected, input.directory);
    return await madeSession(quoteName(instance.name), api.createSession(title, directory));
  });
  const session = sessionRow(created, { state: 'idle' });
  return {
    data: { instance: instance.name, session },
    text: `Created on ${quoteName(instance.name)}: ${renderSession(session, runtime.clock.now())}`,
  };
}

/** The directory of a new session. Only an OpenCode 2 as a whole takes a named one, of which it must have a session. */
async function directoryFor(connected: Connected, named: string | undefined): Promise<string | undefined> {
  const { api, instance, directory } = connected;
  if (named === undefined || named === directory) {
    if (isWholeService(connected))
      throw new OperationError(
        `${quoteName(instance.name)} is an OpenCode 2 with all of its directories; no session was created. Name the instance of one directory, or give directory, one in which it has a session.`,
      );
    return scopeOf(connected).directory;
  }
  if (!isWholeService(connected))
    throw new OperationError(
      `${quoteName(instance.name)} makes sessions only in ${quoteShort(directory, 300)}; no session was created. Leave directory out, or name the instance of that directory.`,
    );
  const known = await api.sessions({ directory: named, limit: 1 });
  if (known.some((session) => session.directory === named)) return named;
  throw new OperationError(
    `${quoteName(instance.name)} has no session in ${quoteShort(named, 300)}; no session was created. Naming a directory runs its plugins, so it must already have a session: open it in opencode first.`,
  );
}

export function sessionRow(session: Session, { state, reason }: SessionState): SessionRow {
  return {
    id: session.id,
    title: singleLine(session.title, 100),
    directory: singleLine(session.directory, 300),
    updated: new Date(session.time.updated).toISOString(),
    state,
    ...(reason !== undefined && { reason: sentence(reason, 300) }),
    ...(session.parentID !== undefined && { parent: session.parentID }),
  };
}

export function renderSession(row: SessionRow, nowMs: number): string {
  const age = formatAge(nowMs - Date.parse(row.updated));
  const reason = row.reason === undefined ? '' : ` (${row.reason})`;
  const parent = row.parent === undefined ? '' : `, sub-agent of ${row.parent}`;
  return `${row.id} ${JSON.stringify(row.title)} ${row.state}${reason}, updated ${age} ago, in ${quoteName(row.directory)}${parent}`;
}

import type { ReaderWords } from '../../model/advice.ts';
import type { Instance } from '../../model/instance.ts';
import { singleLine } from '../../base/plain-text.ts';
import type { Session } from '../../opencode/schema.ts';
import { OperationError, quoteName } from '../answer.ts';
import { scopeOf } from '../listing/directories.ts';
import { type CallSpan, connect, type Connected, type Runtime } from '../runtime.ts';

/** opencode's own default; older sessions are found by their title or whole id. */
const RECENT = 100;
const LISTED = 10;

/**
 * The session with this id, or the only one whose id begins so or whose title fits. Only a whole id finds sessions outside the
 * instance (see `scopeOf`).
 */
export async function findSession(connected: Connected, query: string): Promise<Session> {
  const { api, instance } = connected;
  const wanted = query.trim();
  const name = quoteName(instance.name);
  const next = ({ sessionsOf }: ReaderWords): string => `see ${sessionsOf(instance.name)} for what there is`;
  if (wanted === '')
    throw new OperationError(
      (words) => `${words.session} is empty; leave it out for the most recent session, or ${next(words)}.`,
    );
  const sessions = await api.sessions({ ...scopeOf(connected), limit: RECENT });
  const exact = sessions.find(({ id }) => id === wanted);
  if (exact !== undefined) return exact;
  // opencode answers 500 to an id of another form.
  if (/^ses_[0-9A-Za-z]{8,64}$/.test(wanted)) {
    const session = await api.session(wanted);
    if (session !== undefined) return session;
  }
  const byId = sessions.filter(({ id }) => wanted.startsWith('ses') && id.startsWith(wanted));
  const titled = byId.length > 0 ? byId : await searchTitles(connected, wanted, sessions);
  const [found] = titled;
  if (found !== undefined && titled.length === 1) return found;
  if (found === undefined) {
    throw new OperationError(
      (words) =>
        `No session of ${name} has an id that begins with ${JSON.stringify(cleanQuery(wanted))} or that title; ${next(words)}.`,
    );
  }
  const list = titled.slice(0, LISTED).map(({ id, title }) => `${id} ${JSON.stringify(singleLine(title, 60))}`);
  const more = titled.length > LISTED ? ` and ${titled.length - LISTED} more` : '';
  throw new OperationError(
    ({ again }) =>
      `${JSON.stringify(cleanQuery(wanted))} fits ${titled.length} sessions of ${name}: ${list.join(', ')}${more}; ${again} with one of these ids.`,
  );
}

export async function connectToSession(
  runtime: Runtime,
  { instance, session_id }: { readonly instance: string; readonly session_id: string },
  call: CallSpan,
): Promise<{ readonly connected: Connected; readonly session: Session }> {
  const connected = await connect(runtime, instance, call);
  return { connected, session: await findSession(connected, session_id) };
}

/** Whole titles, else parts of titles; case ignored. */
async function searchTitles(
  connected: Connected,
  wanted: string,
  recent: readonly Session[],
): Promise<readonly Session[]> {
  const older = await connected.api.sessions({ ...scopeOf(connected), search: wanted, limit: RECENT });
  const all = [...new Map([...recent, ...older].map((session) => [session.id, session])).values()];
  const lower = wanted.toLowerCase();
  const whole = all.filter(({ title }) => title.toLowerCase() === lower);
  return whole.length > 0 ? whole : all.filter(({ title }) => title.toLowerCase().includes(lower));
}

/** The most recently updated root session of the instance's directory that is not archived. */
export async function latestSession({ api, directory }: Connected): Promise<Session | undefined> {
  for (const limit of [1, RECENT]) {
    const sessions = await api.sessions({ directory, rootsOnly: true, limit });
    const latest = sessions.find(
      (session) => session.directory === directory && session.parentID === undefined && session.time.archived == null,
    );
    if (latest !== undefined || sessions.length < limit) return latest;
  }
  return undefined;
}

/** opencode answers 500 to an id of another form. */
export function isMessageId(id: string | undefined): id is string {
  return id !== undefined && /^msg_[0-9A-Za-z]{8,64}$/.test(id);
}

export function noSuchMessage(
  { name }: Pick<Instance, 'name'>,
  session: Session,
  messageId: string,
  next: string,
): OperationError {
  const id = JSON.stringify(cleanQuery(messageId));
  return new OperationError(`Session ${session.id} of ${quoteName(name)} has no message ${id}; ${next}`);
}

function cleanQuery(query: string): string {
  return singleLine(query, 80);
}

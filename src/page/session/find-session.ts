import type { Instance, Snapshot } from '../../model/instance.ts';
import type { Session } from '../../opencode/schema.ts';
import { quoteName, quoteShort, singleLine } from '../../base/plain-text.ts';
import { type CallSpan, connectTo, type Connected } from '../../operations/runtime.ts';
import { type PageCaller, PageRefusal, type PageView } from '../contract.ts';

/** Ids made by opencode or, in the same form, by clients. */
const SESSION_ID = /^ses[0-9A-Za-z_-]{1,125}$/;
/** The newest sessions that a guest may see: more than a directory usually has. */
const LOOKED_THROUGH = 1_000;

export interface PlaceAsked {
  /** The instance's name now or before, its key, or the id of its registration. */
  readonly instance: string;
  readonly session: string;
}

/** The instance, which answered just now, and the session. */
export interface PlaceFound {
  readonly connected: Connected;
  readonly session: Session;
}

/** @throws {PageRefusal} no such instance */
export function findShown({ runtime }: PageView, wanted: string): Instance {
  const { instances, resting } = runtime.fleet.snapshot();
  const all = [...instances, ...resting];
  // Never by a part of a name: a button means exactly one instance.
  const found =
    all.find(({ name, aliases = [] }) => name === wanted || aliases.includes(wanted)) ??
    all.find(({ key }) => key === wanted) ??
    byId(all, wanted);
  if (found !== undefined) return found;
  throw new PageRefusal(
    404,
    `There is no instance ${quoteShort(wanted, 100)} here now. ${goneText(runtime.fleet.snapshot(), wanted)}`,
  );
}

/** By registration id, which stays when names change. Not on the LAN, where an announcement may claim any id. */
function byId(all: readonly Instance[], id: string): Instance | undefined {
  const fitting = all.filter(
    ({ key, server }) =>
      key === server.key &&
      server.endpoints.some(({ candidate: { claims, endpoint, key: file } }) => {
        const own = claims.id ?? (claims.service === undefined ? undefined : file);
        return own === id && endpoint.route !== 'lan';
      }),
  );
  return fitting.length === 1 ? fitting[0] : undefined;
}

function goneText({ gone }: Snapshot, wanted: string): string {
  const lost = gone.find(({ name }) => name === wanted);
  return lost === undefined ? 'The list shows what there is.' : `It is gone: ${singleLine(lost.reason, 200)}.`;
}

/** Reaches the instance, and reads the session. @throws {PageRefusal | UnreachableError | RequestError} */
export async function findPlace(
  view: PageView,
  { instance: wanted, session: id }: PlaceAsked,
  caller: PageCaller,
  span: CallSpan,
): Promise<PlaceFound> {
  if (!SESSION_ID.test(id)) throw new PageRefusal(400, 'session: expected the id of a session.');
  const { runtime } = view;
  await runtime.fleet.ready();
  const instance = findShown(view, wanted);
  const connected = await connectTo(runtime, instance, span);
  if (caller.isGuest === true) await checkGuest(connected, id);
  const session = await connected.api.session(id);
  if (session === undefined) throw new PageRefusal(404, `${quoteName(instance.name)} has no session ${id} any more.`);
  return { connected, session };
}

/**
 * Reading a session can load its directory, which runs code from there. A guest may not cause that.
 * @throws {PageRefusal}
 */
async function checkGuest({ api, dialect, directory, serverDirectory }: Connected, id: string): Promise<void> {
  if (dialect === 'opencode-2') return;
  if (dialect === 'opencode-2-preview') {
    if ((await api.statuses('')).has(id)) return;
    throw new PageRefusal(
      403,
      'That session is not running, and showing it would load its directory, which takes the role "drive".',
    );
  }
  const isOwn = directory === serverDirectory;
  const sessions = isOwn ? await api.sessions({ directory, limit: LOOKED_THROUGH }) : [];
  if (sessions.some((session) => session.id === id && session.directory === directory)) return;
  throw new PageRefusal(403, 'Your role here is "read", which sees the sessions of the instance’s own directory only.');
}

/** Whether a guest may see the instance at all. */
export function isForGuests(instance: Instance): boolean {
  const { server } = instance;
  const isOpencode1 = server.endpoints.every(
    ({ lastHealthy }) => (lastHealthy?.dialect ?? 'opencode-1') === 'opencode-1',
  );
  return !isOpencode1 || instance.key === server.key;
}

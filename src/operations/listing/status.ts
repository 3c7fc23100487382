import { quoteShort, sentence, singleLine } from '../../base/plain-text.ts';
import { type Asked, askedLine, askedLines, listAsked } from '../respond/asked.ts';
import { type Answer, quoteName } from '../answer.ts';
import { findOtherProcess } from '../sessions/other-process.ts';
import { type Call, connectTo, type Connected, type Runtime } from '../runtime.ts';
import { sessionState, type SessionState } from '../sessions/session-state.ts';
import { sessionsAtRest } from '../sessions/sessions-at-rest.ts';
import { latestSession } from '../sessions/session-query.ts';
import { sessionRow } from '../sessions/sessions.ts';
import { stallsAmong } from '../send/stalls.ts';
import { renderEndpoints, endpointsShown, versionShown } from './endpoints-shown.ts';
import { reportedStatus } from './reported-status.ts';
import type { StatusView } from '../shapes.ts';
import type { Instance } from '../../model/instance.ts';
import type { Session, SessionStatus } from '../../opencode/schema.ts';
import { UnreachableError } from '../../fleet/fleet.ts';

/** Each costs a request for its title. */
const MAX_SESSIONS = 20;

/** What one instance does now. An unreachable instance is a result, not an error. */
export async function getStatus(
  runtime: Runtime,
  input: { readonly instance: string },
  call: Call,
): Promise<Answer<StatusView>> {
  await runtime.fleet.ready();
  const instance = runtime.fleet.resolve(input.instance);
  const data = reported(runtime, instance) ?? (await askedNow(runtime, instance, call));
  return { data, text: render(data) };
}

function reported(runtime: Runtime, instance: Instance): StatusView | undefined {
  const status = reportedStatus(runtime, instance);
  const isOwn = instance.key === instance.server.key;
  return status && withElsewhere(status, isOwn ? knownElsewhere(runtime, instance) : []);
}

async function askedNow(runtime: Runtime, instance: Instance, call: Call): Promise<StatusView> {
  let connected: Connected;
  try {
    connected = await connectTo(runtime, instance, call);
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    return unreachable(runtime, instance, error);
  }
  const { api, directory } = connected;
  const [statuses, elsewhere] = await Promise.all([api.statuses(directory), surveyElsewhere(runtime, connected, call)]);
  const all = await listAsked(connected, [directory], statuses);
  const running = await runningRows(runtime, connected, statuses, all.asked);
  const sessions = running.length > 0 ? running : await latestRow(runtime, connected, call);
  const status: StatusView = {
    instance: connected.instance.name,
    state: stateOf(sessions.map(({ state }) => state)),
    version: versionShown(connected),
    ...(directory !== '' && { directory: singleLine(directory, 300) }),
    ...endpointsShown(listed(runtime, connected.instance).server, connected.endpoint()),
    sessions,
    waiting: askedLines(all),
  };
  return withElsewhere(status, elsewhere);
}

async function runningRows(
  runtime: Runtime,
  connected: Connected,
  statuses: ReadonlyMap<string, SessionStatus>,
  asked: readonly Asked[],
): Promise<StatusView['sessions']> {
  const stalls = await stallsAmong(runtime, connected, statuses.keys());
  const nowMs = runtime.clock.now();
  return await Promise.all(
    [...statuses].slice(0, MAX_SESSIONS).map(async ([id, status]) => {
      const session = await connected.api.session(id).catch(() => undefined);
      const waiting = asked.filter((one) => one.waiting.request.sessionID === id).map(askedLine);
      const state = sessionState(status, { waiting, stalledSinceMs: stalls.get(id), nowMs });
      return session === undefined ? { id, title: '', ...state } : shortRow(session, state);
    }),
  );
}

function withElsewhere(status: StatusView, elsewhere: readonly Instance[]): StatusView {
  const lines = elsewhere.map(
    ({ name, state, directory = '' }) => `${quoteName(name)}: ${state}, in ${quoteShort(directory, 300)}`,
  );
  return { ...status, ...(lines.length > 0 && { elsewhere: lines }) };
}

/** The same server's instances in other directories, as known. */
function knownElsewhere(runtime: Runtime, { key, server }: Instance): readonly Instance[] {
  return runtime.fleet.snapshot().instances.filter((one) => one.server.key === server.key && one.key !== key);
}

/** The same server's instances in other directories, asked now. */
async function surveyElsewhere(runtime: Runtime, connected: Connected, call: Call): Promise<readonly Instance[]> {
  // Only the instance of the server's own directory shows the others.
  if (connected.directory !== connected.serverDirectory) return [];
  const { instances } = await runtime.fleet.surveyServer(connected, call.signal);
  return instances.filter(({ key }) => key !== connected.instance.key);
}

/** If nothing runs: the latest session, unless it is simply idle. */
async function latestRow(runtime: Runtime, connected: Connected, call: Call): Promise<StatusView['sessions']> {
  const { api, dialect } = connected;
  // The preview would load the directory to show how the session ended.
  const session = dialect === 'opencode-2-preview' ? undefined : await latestSession(connected);
  if (session === undefined) return [];
  const statuses = (): Promise<ReadonlyMap<string, SessionStatus>> => api.statuses(session.directory);
  const states = await sessionsAtRest([session], { api, statuses, nowMs: runtime.clock.now() });
  const state = states.get(session.id);
  if (state === undefined || state.state === 'idle') return [];
  const isOwned =
    state.state === 'interrupted' && (await findOtherProcess(runtime, connected, session, call, 'not')) !== undefined;
  // Another process works on it, and shows it.
  return isOwned ? [] : [shortRow(session, state)];
}

function shortRow(session: Session, state: SessionState): StatusView['sessions'][number] {
  const { id, title, state: word, reason } = sessionRow(session, state);
  return { id, title, state: word, ...(reason !== undefined && { reason }) };
}

/** The most urgent state. */
function stateOf(states: readonly string[]): string {
  return ['waiting', 'retrying', 'stalled', 'busy'].find((state) => states.includes(state)) ?? states[0] ?? 'idle';
}

/** The instance as known now: the call may have found out more. */
function listed(runtime: Runtime, instance: Instance): Instance {
  return runtime.fleet.snapshot().instances.find(({ name }) => name === instance.name) ?? instance;
}

function unreachable(runtime: Runtime, instance: Instance, error: UnreachableError): StatusView {
  const now = listed(runtime, instance);
  const state = ['locked', 'unsupported', 'untrusted'].includes(now.state) ? now.state : 'offline';
  return { instance: instance.name, state, reason: sentence(error.message, 500), sessions: [], waiting: [] };
}

function render(data: StatusView): string {
  const lines = [`${quoteName(data.instance)}: ${data.state}${data.reason === undefined ? '' : ` (${data.reason})`}`];
  if (data.version !== undefined)
    lines.push(
      `opencode ${quoteName(data.version)} in ${data.directory === undefined ? 'the directories of its sessions' : quoteName(data.directory)}`,
    );
  if (data.via !== undefined) lines.push(renderEndpoints({ via: data.via, also: data.also }));
  for (const { id, title, state, reason } of data.sessions) {
    lines.push(`${id} ${JSON.stringify(title)} ${state}${reason === undefined ? '' : ` (${reason})`}`);
  }
  for (const request of data.waiting)
    lines.push(`waiting for ${request} (settle it with respond, or in that opencode)`);
  if (data.elsewhere !== undefined)
    lines.push('The same opencode also works in other directories, each an instance of its own:');
  lines.push(...(data.elsewhere ?? []));
  return lines.join('\n');
}

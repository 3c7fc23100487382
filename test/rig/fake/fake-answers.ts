import { type Answer, WEB_PAGE } from '../answer.ts';
import { fileAnswer, findAnswer, findFileAnswer, listAnswer } from './fake-files.ts';
import type { FakeMessage, FakeSession } from './fake-objects.ts';
import type { FakePrompt, FakeState } from './fake-state.ts';

interface FakeRequest {
  readonly url: URL;
  readonly params: Readonly<Record<string, string>>;
  readonly body: string;
}

type Answerer = (request: FakeRequest, state: FakeState) => Answer;

const HOME = '/home/user';

/** Answers by route, specific routes before general ones, in the form of opencode 1.18.33. */
export const ANSWERS = {
  'GET /global/health': (_, { version }) => ok({ healthy: true, version }),
  'GET /path'({ url }, state) {
    const directory = url.searchParams.get('directory') ?? state.directory;
    const folders = { state: `${HOME}/.local/state/opencode`, config: `${HOME}/.config/opencode` };
    return ok({ home: HOME, ...folders, worktree: directory, directory });
  },
  'GET /project/current': (_, { directory }) =>
    ok({ id: 'fake-project', worktree: directory, vcs: 'git', time: { created: 0, updated: 0 }, sandboxes: [] }),
  'GET /agent': () =>
    ok([
      { name: 'build', mode: 'primary' },
      { name: 'plan', mode: 'primary' },
    ]),
  'GET /config/providers': () => ok({ providers: [{ id: 'fake', models: { 'fake-model': {} } }], default: {} }),
  'GET /experimental/session': ({ url }, state) => ok(listSessions(url.searchParams, state)),
  'GET /session': ({ url }, state) => ok(listSessions(url.searchParams, state)),
  'POST /session'({ url, body }, state) {
    const fields: Partial<FakeSession> = JSON.parse(body || '{}');
    return ok(state.addSession({ directory: url.searchParams.get('directory') ?? state.directory, ...fields }));
  },
  'GET /session/status': ({ url }, state) =>
    ok(Object.fromEntries([...state.statuses].filter(([id]) => isIn(url, id, state)))),
  'GET /session/:id'({ params }, { sessions }) {
    const session = sessions.get(params['id'] ?? '');
    return session ? ok(session) : notFound(`Session not found: ${params['id']}`);
  },
  'PATCH /session/:id'({ params, body }, { sessions }) {
    const session = sessions.get(params['id'] ?? '');
    if (!session) return notFound(`Session not found: ${params['id']}`);
    const { title = session.title }: { readonly title?: string } = JSON.parse(body || '{}');
    sessions.set(session.id, { ...session, title });
    return ok({ ...session, title });
  },
  'DELETE /session/:id'({ params }, state) {
    const id = params['id'] ?? '';
    return state.removeSession(id) ? ok(true) : notFound(`Session not found: ${id}`);
  },
  'POST /session/:id/fork'({ params, body }, state) {
    const session = state.sessions.get(params['id'] ?? '');
    if (!session) return notFound(`Session not found: ${params['id']}`);
    const { messageID }: { readonly messageID?: string } = JSON.parse(body || '{}');
    return ok(state.forkSession(session, messageID));
  },
  'GET /session/:id/children': ({ params }, { sessions }) =>
    ok([...sessions.values()].filter(({ parentID }) => parentID === params['id'])),
  'GET /session/:id/message'({ url, params }, { messages }) {
    const all = messages.get(params['id'] ?? '');
    return all ? page(all, url.searchParams) : notFound(`Session not found: ${params['id']}`);
  },
  'GET /session/:id/message/:messageID'({ params }, { messages }) {
    const message = messages.get(params['id'] ?? '')?.find(({ info }) => info.id === params['messageID']);
    return message ? ok(message) : notFound(`Message not found: ${params['messageID']}`);
  },
  'POST /session/:id/prompt_async'({ params, body }, state) {
    const sessionID = params['id'] ?? '';
    const prompt: FakePrompt = JSON.parse(body || '{}');
    const text = prompt.parts?.[0]?.text;
    if (text === undefined) {
      return { status: 400, body: { name: 'BadRequest', data: { message: 'Expected array', kind: 'Payload' } } };
    }
    if (!state.sessions.has(sessionID)) return notFound(`Session not found: ${sessionID}`);
    state.begin(sessionID, text, prompt);
    return { status: 204 };
  },
  'POST /session/:id/abort'({ params }, state) {
    state.abort(params['id'] ?? '');
    return ok(true);
  },
  'POST /tui/show-toast'({ url, body }, state) {
    state.toasts.push(`${url.searchParams.get('directory')}: ${(JSON.parse(body) as { message: string }).message}`);
    return ok(true);
  },
  'GET /permission': ({ url }, state) =>
    ok([...state.permissions.values()].filter(({ sessionID }) => isIn(url, sessionID, state))),
  'POST /permission/:id/reply': (request, state) => settle(request, state, 'permission.replied'),
  'GET /question': ({ url }, state) =>
    ok([...state.questions.values()].filter(({ sessionID }) => isIn(url, sessionID, state))),
  'POST /question/:id/reply': (request, state) => settle(request, state, 'question.replied'),
  'POST /question/:id/reject': (request, state) => settle({ ...request, body: '' }, state, 'question.rejected'),
  'GET /file': ({ url }, state) => listAnswer(url.searchParams.get('path') ?? '', state),
  'GET /file/content': ({ url }, state) => fileAnswer(url.searchParams.get('path') ?? '', state),
  'GET /find': ({ url }, state) => findAnswer(url.searchParams.get('pattern') ?? '', state),
  'GET /find/file': ({ url }, state) => findFileAnswer(url.searchParams, state),
  // These answers are never sent, since the fake server opens a stream instead.
  'GET /event': () => WEB_PAGE,
  'GET /global/event': () => WEB_PAGE,
} satisfies Readonly<Record<string, Answerer>>;

function listSessions(query: URLSearchParams, { sessions }: FakeState): FakeSession[] {
  const directory = query.get('directory');
  const search = query.get('search')?.toLowerCase();
  return [...sessions.values()]
    .filter((session) => directory === null || session.directory === directory)
    .filter((session) => query.get('roots') !== 'true' || session.parentID === undefined)
    .filter((session) => search === undefined || session.title.toLowerCase().includes(search))
    .toSorted((a, b) => b.time.updated - a.time.updated)
    .slice(0, Number(query.get('limit') ?? 100));
}

/** The last `limit` messages before the cursor, oldest first, and a cursor for older messages. */
function page(messages: readonly FakeMessage[], query: URLSearchParams): Answer {
  const before = query.get('before');
  const cursor: { readonly id?: string } =
    before === null ? {} : JSON.parse(Buffer.from(before, 'base64url').toString());
  const end = cursor.id === undefined ? messages.length : messages.findIndex(({ info }) => info.id === cursor.id);
  const start = Math.max(0, end - Number(query.get('limit') ?? end));
  const oldest = start > 0 ? messages[start] : undefined;
  const answer = ok(messages.slice(start, end));
  if (!oldest) return answer;
  const next = JSON.stringify({ id: oldest.info.id, time: oldest.info.time.created });
  return { ...answer, headers: { 'x-next-cursor': Buffer.from(next).toString('base64url') } };
}

function settle({ params, body }: FakeRequest, state: FakeState, event: string): Answer {
  const requestID = params['id'] ?? '';
  const answer: object = JSON.parse(body || '{}');
  if (state.settle(requestID, event, answer)) return ok(true);
  const kind = event.startsWith('permission') ? 'Permission' : 'Question';
  const message = `${kind} request not found: ${requestID}`;
  return { status: 404, body: { _tag: `${kind}NotFoundError`, requestID, message } };
}

/** Status lists cover one directory: the session's, or the server's own if there is no such session. */
function isIn(url: URL, sessionID: string, { directory, sessions }: FakeState): boolean {
  return (url.searchParams.get('directory') ?? directory) === (sessions.get(sessionID)?.directory ?? directory);
}

function ok(body: unknown): Answer {
  return { status: 200, body };
}

function notFound(message: string): Answer {
  return { status: 404, body: { name: 'NotFoundError', data: { message } } };
}

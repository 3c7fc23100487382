import type { ServerResponse } from 'node:http';

import type { Answer } from '../answer.ts';
import type { Events } from './events.ts';
import { checkAnswerOf } from './forms.ts';
import type {
  Delivery,
  Fields,
  FormSettlement,
  FormValue,
  Message,
  PermissionReply,
  Store,
  StoredSession,
  Waiting,
} from './store.ts';
import { admit, createSession, type NewSession, type Turns } from './turns.ts';

export interface Call {
  readonly params: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly body: Fields;
  readonly response: ServerResponse;
  /** The session in the path, if there is one. */
  readonly session: StoredSession;
  /** The directory that the request names, or the server's own. */
  readonly directory: string;
}

/** One process of the fake. */
export interface Server {
  readonly store: Store;
  readonly waiting: Waiting;
  readonly events: Events;
  readonly turns: Turns;
  readonly version: string;
  readonly pid: number;
  readonly url: () => string;
  readonly home: string;
  /** The files of one directory: contents by path. */
  readonly filesOf: (directory: string) => Readonly<Record<string, string>>;
}

type Handler = (server: Server, call: Call) => Answer | 'stream' | Promise<Answer>;

const DONE: Answer = { status: 204 };
const data = (value: unknown): Answer => ({ status: 200, body: { data: value } });
const fail = (status: number, _tag: string, message: string, fields: Fields = {}): Answer => ({
  status,
  body: { _tag, message, ...fields },
});

export const invalid = (message: string, fields: Fields = {}): Answer =>
  fail(400, 'InvalidRequestError', message, fields);
export const noSession = (sessionID: string): Answer =>
  fail(404, 'SessionNotFoundError', `Session not found: ${sessionID}`, { sessionID });
export const noLocation = (directory: string): Answer =>
  fail(404, 'LocationNotFoundError', `Location not found: ${directory}`, { location: { directory } });

const MAX_MESSAGES = 200;
const MESSAGE_LIMIT = 50;
const SESSION_LIMIT = 50;

/** The handlers of the routes, by the names of the routes in `contract.json`. */
export const HANDLERS: Readonly<Record<string, Handler>> = {
  'GET /api/info': ({ version, pid, url }) => ({
    status: 200,
    body: { version, pid, urls: [url()], paths: { tmp: '/tmp/opencode' } },
  }),
  'GET /api/event': ({ events }, { response }) => {
    events.open(response);
    return 'stream';
  },
  'GET /api/experimental/session/{sessionID}/log': ({ events }, { response, session, query }) => {
    events.sendLog(response, session, Number(query['after'] ?? -1));
    return 'stream';
  },

  'GET /api/session': listSessions,
  'POST /api/session': (server, { body }) => {
    const { id, location, ...named } = body as NewSessionBody;
    if (id !== undefined && !id.startsWith('ses')) return invalid(`Expected a string starting with "ses", got "${id}"`);
    // A known id returns its session, whatever directory the request names.
    const known = id === undefined ? undefined : server.store.sessions.get(id);
    return data((known ?? createSession(server, { id, ...named, directory: location?.directory ?? server.home })).info);
  },
  'GET /api/session/active': ({ turns }) =>
    data(Object.fromEntries(turns.active.map((id) => [id, { type: 'running' }]))),
  'GET /api/session/{sessionID}': (_, { session }) => data(session.info),
  'PATCH /api/session/{sessionID}': ({ events, store }, { session, body }) => {
    const { title, archived } = body as { readonly title?: string; readonly archived?: boolean };
    if (title !== undefined) {
      session.info.title = title;
      events.publish(session, 'session.renamed', { title });
    }
    if (archived === true) session.info.time.archived = store.now();
    else if (archived === false) delete session.info.time.archived;
    if (archived !== undefined) events.publish(session, archived ? 'session.archived' : 'session.unarchived', {});
    return DONE;
  },
  'DELETE /api/session/{sessionID}': async ({ events, store, turns }, { session }) => {
    await turns.interrupt(session, 'user');
    store.sessions.delete(session.info.id);
    events.publish(session, 'session.deleted', {});
    return DONE;
  },
  'POST /api/session/{sessionID}/fork': (server, { session, body }) => {
    const { before } = body as { readonly before?: string };
    const end = before === undefined ? session.messages.length : session.messages.findIndex(({ id }) => id === before);
    if (end < 0) return noMessage(session, before ?? '');
    const { id, title, agent, model, location } = session.info;
    const fork = createSession(server, { title, agent, model, directory: location.directory });
    const kept = session.messages.slice(0, end);
    fork.messages.push(...kept.map((message) => ({ ...structuredClone(message), id: server.store.id('msg') })));
    const through = kept.at(-1)?.id ?? '';
    const boundary =
      before === undefined ? { type: 'through', messageID: through } : { type: 'before', messageID: before };
    Object.assign(fork.info, { fork: { sessionID: id, boundary } });
    server.events.publish(fork, 'session.forked', { parentID: id, boundary });
    return data(fork.info);
  },
  'GET /api/session/{sessionID}/diff': (_, { session }) => data(session.diff),
  'POST /api/session/{sessionID}/agent': (server, { session, body }) => select(server, session, 'agent', body['agent']),
  'POST /api/session/{sessionID}/model': (server, { session, body }) => select(server, session, 'model', body['model']),

  'GET /api/session/{sessionID}/message': listMessages,
  'GET /api/session/{sessionID}/message/{messageID}': (_, { session, params: { messageID = '' } }) => {
    const message = session.messages.find(({ id }) => id === messageID);
    return message ? data(message) : noMessage(session, messageID);
  },

  'POST /api/session/{sessionID}/prompt': (server, { session, body }) => {
    const { text, delivery = 'steer', resume = true, id = server.store.id('msg') } = body as unknown as PromptBody;
    if (!id.startsWith('msg_')) return invalid(`Expected a string starting with "msg_", got "${id}"`);
    return accept(server, session, { id, type: 'user', payload: { text }, delivery }, resume);
  },
  'POST /api/session/{sessionID}/compact': (server, { session, body }) => {
    const { id = server.store.id('msg'), delivery = 'steer' } = body as { id?: string; delivery?: Delivery };
    return accept(server, session, { id, type: 'compaction', payload: {}, delivery }, true);
  },
  'POST /api/session/{sessionID}/interrupt': async ({ turns }, { session }) => ({
    status: 200,
    body: { interrupted: await turns.interrupt(session, 'user') },
  }),

  'GET /api/session/{sessionID}/permission': ({ waiting }, { session }) =>
    data(requestsOf(waiting.permissions, session)),
  'POST /api/session/{sessionID}/permission/{requestID}/reply': (server, { session, params, body }) => {
    const { requestID = '' } = params;
    const pending = server.waiting.permissions.get(requestID);
    if (pending?.request.sessionID !== session.info.id)
      return fail(404, 'PermissionNotFoundError', `Permission request not found: ${requestID}`, { requestID });
    const reply = body as unknown as PermissionReply;
    server.waiting.permissions.delete(requestID);
    server.events.publish(session, 'permission.replied', { requestID, reply: reply.decision });
    pending.settle(reply);
    return DONE;
  },

  'GET /api/session/{sessionID}/form': ({ waiting }, { session }) => data(requestsOf(waiting.forms, session)),
  'POST /api/session/{sessionID}/form/{formID}/reply': (server, call) => {
    const { answer } = call.body as { readonly answer: Readonly<Record<string, FormValue>> };
    return settleForm(server, call, { status: 'answered', answer });
  },
  'DELETE /api/session/{sessionID}/form/{formID}': (server, call) => {
    const { message } = call.query as { readonly message?: string };
    return settleForm(server, call, { status: 'cancelled', message });
  },

  'GET /api/agent': (_, { directory }) =>
    located(
      directory,
      ['build', 'plan'].map((id) => ({ id, name: id, request: {}, mode: 'primary', hidden: false, permissions: [] })),
    ),
  'GET /api/model': (_, { directory }) => located(directory, [SCRIPTED_MODEL]),
  'GET /api/fs/list': ({ filesOf }, { directory, query }) => {
    const folder = typeof query['path'] === 'string' ? query['path'].replace(/\/?$/, '/').replace(/^(\.?\/)+/, '') : '';
    if (!isInside(folder)) return outside(folder);
    const entries = new Map<string, 'file' | 'directory'>();
    for (const path of Object.keys(filesOf(directory))) {
      if (!path.startsWith(folder)) continue;
      const [name = '', ...deeper] = path.slice(folder.length).split('/');
      entries.set(`${folder}${name}${deeper.length > 0 ? '/' : ''}`, deeper.length > 0 ? 'directory' : 'file');
    }
    const listed = [...entries].map(([path, type]) => ({ path, type }));
    return located(directory, listed);
  },
  'GET /api/fs/find': ({ filesOf }, { directory, query }) => {
    const found = Object.keys(filesOf(directory)).filter((path) => path.includes(String(query['query'])));
    const entries = found.slice(0, Number(query['limit'] ?? 100)).map((path) => ({ path, type: 'file' }));
    return located(directory, query['type'] === 'directory' ? [] : entries);
  },
  'GET /api/fs/read/*': ({ filesOf }, { directory, params: { rest = '' } }) => {
    if (!isInside(rest)) return outside(rest);
    const content = filesOf(directory)[rest];
    if (content === undefined) return invalid(`File not found: ${rest}`);
    return { status: 200, headers: { 'content-type': 'text/plain' }, body: content };
  },
};

const SCRIPTED_MODEL = {
  id: 'scripted-model',
  modelID: 'scripted-model',
  providerID: 'scripted',
  name: 'scripted-model',
  capabilities: { tools: true, input: ['text'], output: ['text'] },
  variants: [],
  time: { released: 0 },
  cost: [],
  status: 'active',
  enabled: true,
  limit: { context: 100_000, output: 10_000 },
} as const;

type NewSessionBody = Partial<Pick<NewSession, 'id' | 'title' | 'agent' | 'model'>> & {
  readonly location?: { readonly directory: string };
};

interface PromptBody {
  readonly id?: string;
  readonly text: string;
  readonly delivery?: Delivery;
  readonly resume?: boolean;
}

/** The first admission of an id wins, with any text; each accepted one wakes the session. */
function accept(server: Server, session: StoredSession, wanted: Parameters<typeof admit>[2], resume: boolean): Answer {
  const known = server.store.admissions.get(wanted.id);
  if (known && (known.sessionID !== session.info.id || known.type !== wanted.type))
    return fail(409, 'ConflictError', `Message ID conflicts with an existing durable record: ${wanted.id}`, {
      resource: wanted.id,
    });
  const item = known ?? admit(server, session, wanted);
  // A copy, since waking the session changes the original.
  const answer = data(structuredClone(item));
  if (resume) server.turns.wake(session);
  return answer;
}

function select({ events, store }: Server, session: StoredSession, what: 'agent' | 'model', value: unknown): Answer {
  const change = { [what]: value, previous: session.info[what] };
  Object.assign(session.info, { [what]: value });
  session.messages.push({ id: store.id('msg'), type: `${what}-switched`, time: { created: store.now() }, ...change });
  events.publish(session, `session.${what}.selected`, change);
  return DONE;
}

function settleForm(
  { waiting, events }: Server,
  { session, params: { formID: id = '' } }: Call,
  settlement: FormSettlement,
): Answer {
  const { id: sessionID } = session.info;
  const pending = waiting.forms.get(id);
  if (pending?.request.sessionID !== sessionID)
    return waiting.settledForms.get(id) === sessionID
      ? fail(409, 'FormAlreadySettledError', `Form already settled: ${id}`, { id })
      : fail(404, 'FormNotFoundError', `Form not found: ${id}`, { id });
  const isAnswered = settlement.status === 'answered';
  const wrong = isAnswered ? checkAnswerOf(pending.request.fields, settlement.answer) : undefined;
  if (wrong !== undefined) return fail(400, 'FormInvalidAnswerError', wrong, { id });
  waiting.forms.delete(id);
  waiting.settledForms.set(id, sessionID);
  if (isAnswered) events.publish(session, 'form.replied', { id, answer: settlement.answer });
  else events.publish(session, 'form.cancelled', { id });
  pending.settle(settlement);
  return DONE;
}

function listSessions({ store }: Server, { query }: Call): Answer {
  const asked = query['cursor'] === undefined ? query : decode(query['cursor']);
  if (!asked) return fail(400, 'InvalidCursorError', 'Invalid cursor');
  const { order, directory, parentID, search, archived } = asked as SessionQuery;
  const fitting = store
    .newestFirst()
    .filter(
      ({ info }) =>
        (directory === undefined || info.location.directory === directory) &&
        (parentID === undefined || (info.parentID ?? 'null') === parentID) &&
        (search === undefined || (info.title ?? '').toLowerCase().includes(search.toLowerCase())) &&
        (info.time.archived !== undefined) === (archived ?? false),
    );
  if (order === 'asc') fitting.reverse();
  const infos = fitting.map(({ info }) => info);
  return page(infos, asked, Number(query['limit'] ?? asked['limit'] ?? SESSION_LIMIT));
}

interface SessionQuery {
  readonly order?: 'asc' | 'desc';
  readonly directory?: string;
  readonly parentID?: string;
  readonly search?: string;
  readonly archived?: boolean;
}

function listMessages(_: Server, { session, query }: Call): Answer {
  const { cursor, limit } = query;
  if (cursor !== undefined && query['order'] !== undefined) return invalid('Cursor cannot be combined with order');
  if (Number(limit ?? 1) > MAX_MESSAGES) return invalid(`Expected a limit of at most ${MAX_MESSAGES}`);
  const asked = cursor === undefined ? query : decode(cursor);
  if (!asked) return fail(400, 'InvalidCursorError', 'Invalid cursor');
  const { messages } = session;
  const fitting: readonly Message[] = messages.filter(({ type }) => (asked['type'] ?? type) === type);
  const ordered = asked['order'] === 'asc' ? fitting : fitting.toReversed();
  return page(ordered, asked, Number(limit ?? asked['limit'] ?? MESSAGE_LIMIT));
}

/** Cursors hold the query and the last item. Every page but an empty one has a next cursor, so the last one leads to an empty page. */
function page(all: readonly { readonly id: string }[], asked: Fields, limit: number): Answer {
  const place = (anchor: unknown): number => all.findIndex(({ id }) => id === anchor);
  const end = asked['before'] === undefined ? undefined : Math.max(place(asked['before']), 0);
  const start = end === undefined ? place(asked['after']) + 1 : Math.max(end - limit, 0);
  const found = all.slice(start, end ?? start + limit);
  const { before: _, after: __, cursor: ___, ...filters } = asked;
  const cursor = (anchor: Fields): string =>
    Buffer.from(JSON.stringify({ ...filters, ...anchor })).toString('base64url');
  const [first] = found;
  const last = found.at(-1);
  const cursors = {
    ...(first && start > 0 ? { previous: cursor({ before: first.id }) } : {}),
    ...(last ? { next: cursor({ after: last.id }) } : {}),
  };
  return { status: 200, body: { data: found, cursor: cursors } };
}

function decode(cursor: unknown): Fields | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(String(cursor), 'base64url').toString());
    return typeof value === 'object' && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function noMessage({ info }: StoredSession, messageID: string): Answer {
  return fail(404, 'MessageNotFoundError', `Message not found: ${messageID}`, { sessionID: info.id, messageID });
}

function located(directory: string, value: unknown): Answer {
  return { status: 200, body: { location: { directory }, data: value } };
}

function isInside(path: string): boolean {
  return !path.startsWith('/') && !path.split('/').includes('..');
}

function outside(path: string): Answer {
  return invalid(`Path is outside of the location: ${path}`);
}

function requestsOf<Request extends { readonly sessionID: string }>(
  table: ReadonlyMap<string, { readonly request: Request }>,
  { info }: StoredSession,
): Request[] {
  return [...table.values()].flatMap(({ request }) => (request.sessionID === info.id ? [request] : []));
}

import * as z from 'zod';

import { jsonOf } from '../../../base/errors.ts';
import { type Connection, exchange, MAX_BODY_BYTES, type RequestInit, RequestError } from '../../../http/exchange.ts';
import { type MessagePage, NotPossibleError, type OpencodeApi, type PageQuery, type Prompt } from '../../api.ts';
import { openEvents } from '../../events.ts';
import { said, wordsOf } from '../../said.ts';
import { type Permission, type Question, sensible, type Session, type SessionStatus } from '../../schema.ts';
import { EventReader } from './events.ts';
import { formAnswer } from './forms.ts';
import { messagesOf, permissionOf, questionOf, sessionOf } from './messages.ts';
import {
  dataOf,
  fitting,
  type Generation,
  pageOf,
  wireActiveSchema,
  wireAgentSchema,
  wireDiffSchema,
  wireFileSchema,
  wireFormSchema,
  wireMessageSchema,
  wireModelSchema,
  type WireMessage,
  wirePermissionSchema,
  wireQuestionSchema,
  wireSessionSchema,
} from './wire.ts';

/** A cold directory loads its plugins and MCP servers on the first request that needs them: 2.3 s with the preview. */
const CALL_TIMEOUT_MS = 15_000;
const SEARCH_TIMEOUT_MS = 30_000;
/** Bytes of one string in an answer that is too large. */
const CUTS = [64 * 1024, 1024];
/** The server's limit for a page of messages. */
const MAX_PAGE = 200;
/** For one page of ours. */
const MAX_PAGES = 4;
const DEFAULT_SESSIONS = 100;
/** Active sessions, sub-agents included, whose directory and requests are asked for. */
const MAX_ACTIVE = 64;

interface Ask<T> extends RequestInit {
  readonly schema: z.ZodType<T>;
  readonly timeoutMs?: number;
  /** A 404 is undefined, not an error. */
  readonly mayLack?: boolean;
}

/** The calls to an OpenCode 2: 2.0 to 2.3 by the contract of 2.1.2, or the preview, whose routes and keys differ. */
export function opencode2Api(connection: Connection, generation: Generation, signal?: AbortSignal): OpencodeApi {
  return new Opencode2(connection, generation, signal).api();
}

class Opencode2 {
  readonly #connection: Connection;
  readonly #isPreview: boolean;
  readonly #signal: AbortSignal | undefined;
  /** Of active sessions; asked once for each. */
  readonly #directories = new Map<string, string>();

  constructor(connection: Connection, generation: Generation, signal: AbortSignal | undefined) {
    this.#connection = connection;
    this.#isPreview = generation === 'opencode-2-preview';
    this.#signal = signal;
  }

  api(): OpencodeApi {
    return {
      isIdempotent: true,
      sessions: async ({ directory, rootsOnly, search, limit = DEFAULT_SESSIONS }) => {
        const query = {
          directory: directory || undefined,
          search,
          limit,
          ...(rootsOnly && !this.#isPreview && { parentID: 'null' }),
        };
        const { data } = await this.#get(`/api/session${queryOf(query)}`, dataOf(sensible(wireSessionSchema)));
        return data.map(sessionOf);
      },
      session: (id) => this.#session(id),
      createSession: (title, directory) => this.#create(title, directory),
      statuses: async (directory) => {
        const { inside, unknown } = await this.#activeIn(directory);
        const statuses = await Promise.all(inside.map(async (id) => [id, await this.#statusOf(id)] as const));
        // Left out, a running session would look idle.
        return new Map([...statuses, ...unknown.map((id) => [id, { type: 'busy' }] as const)]);
      },
      messages: (id, query) => this.#page(id, query),
      message: async (id, messageId) => {
        const found = await this.#find(`${sessionPath(id)}/message/${messageId}`, wireMessageSchema);
        return found && messagesOf([found])[0];
      },
      permissions: (directory) => this.#permissions(directory),
      questions: async (directory) => (await this.#forms(directory)).map(({ question }) => question),
      replyPermission: async (directory, id, reply, message) => {
        const request = (await this.#permissions(directory)).find((one) => one.id === id);
        if (request === undefined) return false;
        const body = { [this.#isPreview ? 'reply' : 'decision']: reply, ...(message !== undefined && { message }) };
        return await this.#did('POST', `${sessionPath(request.sessionID)}/permission/${id}/reply`, body);
      },
      replyQuestion: (directory, id, answers) => this.#answer(directory, id, answers),
      rejectQuestion: async (directory, id) => {
        const form = (await this.#forms(directory)).find(({ question }) => question.id === id);
        if (form === undefined) return false;
        const session = sessionPath(form.question.sessionID);
        return this.#isPreview
          ? await this.#did('POST', `${session}/question/${id}/reject`, {})
          : await this.#settled('DELETE', `${session}/form/${id}`);
      },
      agents: async (directory) => {
        const { data } = await this.#get(`/api/agent${inLocation(directory)}`, dataOf(z.array(wireAgentSchema)));
        return data.filter(({ mode, hidden }) => mode !== 'subagent' && hidden !== true).map(({ id }) => id);
      },
      models: async (directory) => {
        const { data } = await this.#get(`/api/model${inLocation(directory)}`, dataOf(z.array(wireModelSchema)));
        return data
          .filter(({ enabled }) => enabled !== false)
          .map(({ id, providerID }) => ({ providerID, modelID: id }));
      },
      prompt: (prompt) => this.#prompt(prompt),
      abort: async (id) => void (await this.#did('POST', `${sessionPath(id)}/interrupt`)),
      showToast: () => this.#lacks('show a line in a terminal', 'OpenCode 1 can'),
      events: (_, eventsSignal = this.#signal) => {
        const reader = new EventReader();
        return openEvents(this.#connection, '/api/event', eventsSignal, (value, chars) => reader.read(value, chars));
      },
      fork: async (id, before) => {
        if (this.#isPreview) return await this.#lacks('fork a session', WITH_RELEASE);
        const body = { ...(before !== undefined && { before }) };
        return sessionOf((await this.#send('POST', `${sessionPath(id)}/fork`, body, dataOf(wireSessionSchema))).data);
      },
      rename: async (id, title) => {
        if (this.#isPreview) return await this.#lacks('rename a session', WITH_RELEASE);
        await this.#did('PATCH', sessionPath(id), { title });
        return (await this.#session(id)) ?? (await this.#lacks('find the session that was renamed', 'list_sessions'));
      },
      remove: async (id) =>
        this.#isPreview
          ? await this.#lacks('delete a session', WITH_RELEASE)
          : await this.#did('DELETE', sessionPath(id)),
      listFiles: async (directory, path) => {
        const schema = dataOf(z.array(wireFileSchema));
        const { data } = await this.#get(`/api/fs/list${inLocation(directory, { path })}`, schema, SEARCH_TIMEOUT_MS);
        return data.map(({ path: found, type }) => ({ name: nameOf(found), path: found, type, ignored: false }));
      },
      readFile: (directory, path) => this.#readFile(directory, path),
      findText: () => this.#lacks('search in files', 'search with names: true finds files by their names'),
      findFiles: async (directory, query, limit) => {
        const path = `/api/fs/find${inLocation(directory, { query, limit, type: 'file' })}`;
        const { data } = await this.#get(path, dataOf(z.array(wireFileSchema)), SEARCH_TIMEOUT_MS);
        return data.filter(({ type }) => type === 'file').map(({ path: found }) => found);
      },
      changedMessages: async (id, query) => await this.#changes(id, query.before),
      changedMessage: async (id, messageId) => await this.#changesOf(id, messageId),
    };
  }

  async #page(id: string, { limit, before }: PageQuery): Promise<MessagePage> {
    const entries: WireMessage[] = [];
    let olderCursor = before;
    let size = MAX_PAGE;
    // Not every entry is a message, so more pages may be needed. Large messages come in smaller pages, until there is one.
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const found = messagesOf(entries.toReversed()).length;
      if (found >= limit || (found > 0 && size < limit - found)) break;
      const { data, cursor, asked } = await this.#messages(id, Math.min(limit - found, size), olderCursor);
      entries.push(...data);
      size = asked < limit - found ? asked : size;
      // The last page has a cursor too, which leads to an empty page.
      olderCursor = data.length < asked ? undefined : (cursor?.next ?? undefined);
      if (olderCursor === undefined) break;
    }
    return { messages: messagesOf(entries.toReversed()), ...(olderCursor !== undefined && { olderCursor }) };
  }

  async #session(id: string): Promise<Session | undefined> {
    const found = await this.#find(sessionPath(id), wireSessionSchema);
    return found && sessionOf(found);
  }

  async #create(title: string | undefined, directory: string | undefined): Promise<Session> {
    if (directory === undefined || directory === '') throw new NotPossibleError(NO_DIRECTORY);
    // The preview takes no title, and makes one itself.
    const body = { location: { directory }, ...(title !== undefined && !this.#isPreview && { title }) };
    return sessionOf((await this.#send('POST', '/api/session', body, dataOf(wireSessionSchema))).data);
  }

  /** Active sessions in a directory, or in any if it is empty. `unknown`: those beyond `MAX_ACTIVE`. */
  async #activeIn(directory: string): Promise<Readonly<Record<'inside' | 'unknown', readonly string[]>>> {
    const { data } = await this.#get('/api/session/active', dataOf(wireActiveSchema));
    const all = Object.keys(data);
    const ids = all.slice(0, MAX_ACTIVE);
    const known = await Promise.all(
      ids.map(async (id) => {
        const found = this.#directories.get(id) ?? (await this.#session(id))?.directory;
        if (found !== undefined) this.#directories.set(id, found);
        return found;
      }),
    );
    const inside = ids.filter((_, index) => directory === '' || known[index] === directory);
    return { inside, unknown: all.slice(MAX_ACTIVE) };
  }

  /** Of an active session: busy or retrying, by its newest entry. The preview does not tell these apart. */
  async #statusOf(id: string): Promise<SessionStatus> {
    if (this.#isPreview) return { type: 'busy' };
    const newest = await this.#messages(id, 1, undefined).catch(() => undefined);
    const { retry, time } = newest?.data[0] ?? {};
    if (retry == null || time?.completed != null) return { type: 'busy' };
    const { attempt, at, error } = retry;
    return { type: 'retry', attempt, message: error.message || error.type, ...(at != null && { next: at }) };
  }

  /** A page, newest first. Large messages come in smaller pages (`asked` entries), and a single one with its long strings cut. */
  async #messages(
    id: string,
    limit: number,
    before: string | undefined,
  ): Promise<z.infer<ReturnType<typeof messagePage>> & { readonly asked: number }> {
    // A cursor has an order, and is refused with another.
    const query = { limit, ...(before === undefined ? { order: 'desc' } : { cursor: before }) };
    try {
      const path = `${sessionPath(id)}/message${queryOf(query)}`;
      return { ...(await this.#ask(path, { schema: messagePage() }, limit > 1 ? [] : CUTS)), asked: limit };
    } catch (error) {
      if (!isTooLarge(error) || limit <= 1) throw error;
      return await this.#messages(id, Math.ceil(limit / 8), before);
    }
  }

  async #permissions(directory: string): Promise<readonly Permission[]> {
    const all = await this.#ofActive(directory, 'permission', wirePermissionSchema);
    return all.map(permissionOf);
  }

  /** Questions of the preview, or forms, with the fields that an answer needs. */
  async #forms(
    directory: string,
  ): Promise<readonly { readonly question: Question; readonly form?: z.infer<typeof wireFormSchema> }[]> {
    if (this.#isPreview)
      return (await this.#ofActive(directory, 'question', wireQuestionSchema)).map((question) => ({ question }));
    const forms = await this.#ofActive(directory, 'form', wireFormSchema);
    return forms.map((form) => ({ form, question: questionOf(form) }));
  }

  /** Asks active sessions only: the others wait for nothing, and their directory may not be loaded. */
  async #ofActive<T>(directory: string, kind: string, schema: z.ZodType<T>): Promise<readonly T[]> {
    const { inside } = await this.#activeIn(directory);
    const all = await Promise.all(inside.map((id) => this.#find(`${sessionPath(id)}/${kind}`, z.array(schema))));
    return all.flatMap((found) => found ?? []);
  }

  async #answer(directory: string, id: string, answers: readonly (readonly string[])[]): Promise<boolean> {
    const found = (await this.#forms(directory)).find(({ question }) => question.id === id);
    if (found === undefined) return false;
    const session = sessionPath(found.question.sessionID);
    if (found.form === undefined) return await this.#did('POST', `${session}/question/${id}/reply`, { answers });
    const made = formAnswer(found.form.fields, answers);
    if ('problem' in made) throw new NotPossibleError(`Nothing was answered: ${made.problem}.`);
    return await this.#settled('POST', `${session}/form/${id}/reply`, { answer: made.answer });
  }

  /** A repeated prompt runs once. Agent and model stay the session's. */
  async #prompt({ sessionId, messageId, text, agent, model }: Prompt): Promise<void> {
    const session = sessionPath(sessionId);
    if (agent !== undefined) await this.#did('POST', `${session}/agent`, { agent });
    if (model !== undefined)
      await this.#did('POST', `${session}/model`, { model: { providerID: model.providerID, id: model.modelID } });
    // 2.x commits the revert itself; on the preview the new turn would count as undone too.
    if (this.#isPreview && (await this.#session(sessionId))?.revert != null)
      await this.#did('POST', `${session}/revert/commit`);
    const body = { id: messageId, ...(this.#isPreview ? { prompt: { text } } : { text }), delivery: 'queue' };
    const taken = z.object({
      data: z.object({
        payload: z.object({ text: z.string() }).optional(),
        prompt: z.object({ text: z.string() }).optional(),
      }),
    });
    const { data } = await this.#send('POST', `${session}/prompt`, body, taken);
    const admitted = (data.payload ?? data.prompt)?.text;
    if (admitted !== undefined && admitted !== text)
      throw new RequestError('status', `opencode has message ${messageId} with other words`, { status: 409 });
  }

  async #readFile(directory: string, path: string): ReturnType<OpencodeApi['readFile']> {
    const place = path.split('/').map(encodeURIComponent).join('/');
    const label = `GET /api/fs/read/${place}`;
    const { status, headers, text } = await exchange(
      this.#connection,
      `/api/fs/read/${place}${inLocation(directory)}`,
      { anyType: true },
      { timeoutMs: SEARCH_TIMEOUT_MS, maxBytes: MAX_BODY_BYTES, signal: this.#signal },
    );
    if (status === 404) return { type: 'text', content: '' };
    if (status !== 200) throw this.#statusError(label, status, text);
    const mimeType = (headers['content-type'] ?? '').split(';', 1)[0] ?? '';
    // Decoding has replaced what is not UTF-8.
    const isText = !text.includes('\uFFFD') && !text.includes('\0');
    return isText ? { type: 'text', content: text, mimeType } : { type: 'binary', content: '', mimeType };
  }

  async #changes(id: string, before: string | undefined): ReturnType<OpencodeApi['changedMessages']> {
    const [{ messages }, diffs] = await Promise.all([this.#page(id, { limit: MAX_PAGE, before }), this.#diffs(id)]);
    const prompt = messages.findLast(({ info }) => info.role === 'user')?.info.id;
    return { messages: prompt === undefined ? [] : [{ info: { id: prompt, role: 'user', summary: { diffs } } }] };
  }

  async #changesOf(id: string, messageId: string): ReturnType<OpencodeApi['changedMessage']> {
    const message = await this.#find(`${sessionPath(id)}/message/${messageId}`, wireMessageSchema);
    if (message === undefined) return undefined;
    const diffs = await this.#diffs(id, messageId);
    return { info: { id: messageId, role: message.type === 'user' ? 'user' : 'assistant', summary: { diffs } } };
  }

  async #diffs(id: string, from?: string): Promise<z.infer<typeof wireDiffSchema>[]> {
    if (this.#isPreview) return await this.#lacks('show what a session changed', WITH_RELEASE);
    const { data } = await this.#get(
      `${sessionPath(id)}/diff${queryOf({ from })}`,
      dataOf(z.array(wireDiffSchema)),
      SEARCH_TIMEOUT_MS,
    );
    return data;
  }

  #get<T>(path: string, schema: z.ZodType<T>, timeoutMs?: number): Promise<T> {
    return this.#ask(path, { schema, ...(timeoutMs !== undefined && { timeoutMs }) });
  }

  /** The data of an answer; undefined for a 404. */
  async #find<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
    return (await this.#ask(path, { schema: dataOf(schema).optional(), mayLack: true }))?.data;
  }

  #send<T>(method: string, path: string, body: object, schema: z.ZodType<T>): Promise<T> {
    return this.#ask(path, { method, body: JSON.stringify(body), schema });
  }

  /** False if the form is gone, or was settled by somebody else. */
  async #settled(method: string, path: string, body?: object): Promise<boolean> {
    try {
      return await this.#did(method, path, body);
    } catch (error) {
      if (error instanceof RequestError && error.status === 409) return false;
      throw error;
    }
  }

  /** False for a 404. */
  async #did(method: string, path: string, body?: object): Promise<boolean> {
    const { status, text } = await this.#exchange(path, { method, ...(body && { body: JSON.stringify(body) }) });
    if (status === 404) return false;
    if (status >= 400) throw this.#statusError(`${method} ${path}`, status, text);
    return true;
  }

  async #ask<T>(path: string, ask: Ask<T>, cuts: readonly number[] = CUTS): Promise<T> {
    const { schema, method = 'GET', body, timeoutMs, mayLack } = ask;
    const label = `${method} ${path.split('?', 1)[0]}`;
    for (const maxStringBytes of [undefined, ...(method === 'GET' ? cuts : [])]) {
      try {
        const init = { method, ...(body !== undefined && { body }) };
        const { status, text } = await this.#exchange(path, init, timeoutMs, maxStringBytes);
        if (status === 404 && mayLack === true) return schema.parse(undefined);
        if (status !== 200) throw this.#statusError(label, status, text);
        return parse(schema, text, label);
      } catch (error) {
        if (!isTooLarge(error) || maxStringBytes === cuts.at(-1)) throw error;
      }
    }
    throw new RequestError('too-large', `${label}: too large`);
  }

  #exchange(
    path: string,
    init: RequestInit,
    timeoutMs = CALL_TIMEOUT_MS,
    maxStringBytes?: number,
  ): ReturnType<typeof exchange> {
    return exchange(this.#connection, path, init, {
      timeoutMs,
      maxBytes: MAX_BODY_BYTES,
      maxStringBytes,
      signal: this.#signal,
    });
  }

  #statusError(label: string, status: number, text: string): RequestError {
    const words = wordsOf(jsonOf(text));
    const isCold = this.#isPreview && status === 500 && words === undefined && label.includes('/api/session/');
    const why = isCold ? COLD : words === undefined ? '' : said(words);
    return new RequestError('status', `${label}: HTTP ${status}${why}`, { status });
  }

  #lacks(what: string, who: string): Promise<never> {
    const version = this.#isPreview ? 'This preview of OpenCode 2' : 'OpenCode 2';
    return Promise.reject(new NotPossibleError(`${version} cannot ${what}; ${who}.`));
  }
}

/** The preview's 500 has no message. */
const COLD =
  "; this preview of OpenCode 2 cannot load the session's directory: it may be gone, or its configuration broken";

const WITH_RELEASE = 'OpenCode 2.1 can';
const NO_DIRECTORY =
  'An OpenCode 2 works in many directories: name one of its sessions with session_id, or one of its instances; list_sessions and instances show them. Nothing was done.';

const messagePage = () => pageOf(wireMessageSchema);

function sessionPath(id: string): string {
  return `/api/session/${id}`;
}

/** Naming a directory runs its plugins: it must be a session's. */
function inLocation(directory: string, query: Readonly<Record<string, string | number>> = {}): string {
  if (directory === '') throw new NotPossibleError(NO_DIRECTORY);
  return queryOf({ ...query, 'location[directory]': directory });
}

function queryOf(query: Readonly<Record<string, string | number | undefined>>): string {
  const pairs = Object.entries(query).filter((pair): pair is [string, string | number] => pair[1] !== undefined);
  const text = new URLSearchParams(Object.fromEntries(pairs.map(([name, value]) => [name, String(value)]))).toString();
  return text === '' ? '' : `?${text}`;
}

function nameOf(path: string): string {
  return path.replace(/\/$/, '').split('/').at(-1) ?? path;
}

function isTooLarge(error: unknown): boolean {
  return error instanceof RequestError && error.kind === 'too-large';
}

function parse<T>(schema: z.ZodType<T>, text: string, label: string): T {
  const value = jsonOf(text);
  if (value === undefined) throw new RequestError('malformed', `${label}: the body is not JSON`);
  return fitting(schema, value, label);
}

import * as z from 'zod';

import { type Connection, RequestError } from '../../../http/exchange.ts';
import { type MessagePage, NotPossibleError, type OpencodeApi, type PageQuery, type Prompt } from '../../api.ts';
import { openEvents } from '../../events.ts';
import { type Permission, type Question, sensible, type Session, type SessionStatus } from '../../schema.ts';
import { EventReader } from './events.ts';
import { formAnswer } from './forms.ts';
import { messagesOf, permissionOf, questionOf, sessionOf } from './messages.ts';
import { isTooLarge, Opencode2Requests, SEARCH_TIMEOUT_MS } from './requests.ts';
import {
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

/** The server's limit for a page of messages. */
const MAX_PAGE = 200;
/** For one page of ours. */
const MAX_PAGES = 4;
const DEFAULT_SESSIONS = 100;
/** Active sessions, sub-agents included, whose directory and requests are asked for. */
const MAX_ACTIVE = 64;

/** The calls to an OpenCode 2: 2.0 to 2.3 by the contract of 2.1.2, or the preview, whose routes and keys differ. */
export function opencode2Api(connection: Connection, generation: Generation, signal?: AbortSignal): OpencodeApi {
  return new Opencode2(connection, generation, signal).api();
}

class Opencode2 {
  readonly #connection: Connection;
  readonly #requests: Opencode2Requests;
  readonly #isPreview: boolean;
  readonly #signal: AbortSignal | undefined;
  /** Of active sessions; asked once for each. */
  readonly #directories = new Map<string, string>();

  constructor(connection: Connection, generation: Generation, signal: AbortSignal | undefined) {
    this.#connection = connection;
    this.#requests = new Opencode2Requests(connection, generation, signal);
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
        const schema = sensible(wireSessionSchema);
        return (await this.#requests.data(`/api/session${queryOf(query)}`, schema)).map(sessionOf);
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
        const found = await this.#requests.find(`${sessionPath(id)}/message/${messageId}`, wireMessageSchema);
        return found && messagesOf([found])[0];
      },
      permissions: (directory) => this.#permissions(directory),
      questions: async (directory) => (await this.#forms(directory)).map(({ question }) => question),
      replyPermission: async (directory, id, reply, message) => {
        const request = (await this.#permissions(directory)).find((one) => one.id === id);
        if (request === undefined) return false;
        const body = { [this.#isPreview ? 'reply' : 'decision']: reply, ...(message !== undefined && { message }) };
        return await this.#requests.did('POST', `${sessionPath(request.sessionID)}/permission/${id}/reply`, body);
      },
      replyQuestion: (directory, id, answers) => this.#answer(directory, id, answers),
      rejectQuestion: async (directory, id) => {
        const form = (await this.#forms(directory)).find(({ question }) => question.id === id);
        if (form === undefined) return false;
        const session = sessionPath(form.question.sessionID);
        return this.#isPreview
          ? await this.#requests.did('POST', `${session}/question/${id}/reject`, {})
          : await this.#requests.settled('DELETE', `${session}/form/${id}`);
      },
      agents: async (directory) => {
        const all = await this.#requests.data(`/api/agent${inLocation(directory)}`, z.array(wireAgentSchema));
        return all.filter(({ mode, hidden }) => mode !== 'subagent' && hidden !== true).map(({ id }) => id);
      },
      models: async (directory) => {
        const all = await this.#requests.data(`/api/model${inLocation(directory)}`, z.array(wireModelSchema));
        return all
          .filter(({ enabled }) => enabled !== false)
          .map(({ id, providerID }) => ({ providerID, modelID: id }));
      },
      prompt: (prompt) => this.#prompt(prompt),
      abort: async (id) => void (await this.#requests.did('POST', `${sessionPath(id)}/interrupt`)),
      showToast: () => this.#lacks('show a line in a terminal', 'OpenCode 1 can'),
      events: (_, eventsSignal = this.#signal) => {
        const reader = new EventReader();
        return openEvents(this.#connection, '/api/event', eventsSignal, (value, chars) => reader.read(value, chars));
      },
      fork: async (id, before) => {
        if (this.#isPreview) return await this.#lacks('fork a session', WITH_RELEASE);
        const body = { ...(before !== undefined && { before }) };
        return sessionOf(await this.#requests.post(`${sessionPath(id)}/fork`, body, wireSessionSchema));
      },
      rename: async (id, title) => {
        if (this.#isPreview) return await this.#lacks('rename a session', WITH_RELEASE);
        const renamed = (await this.#requests.did('PATCH', sessionPath(id), { title })) && (await this.#session(id));
        if (renamed) return renamed;
        throw new RequestError('status', `PATCH ${sessionPath(id)}: HTTP 404`, { status: 404 });
      },
      remove: async (id) =>
        this.#isPreview
          ? await this.#lacks('delete a session', WITH_RELEASE)
          : await this.#requests.did('DELETE', sessionPath(id)),
      listFiles: async (directory, path) => {
        const route = `/api/fs/list${inLocation(directory, { path })}`;
        const all = await this.#requests.data(route, z.array(wireFileSchema), SEARCH_TIMEOUT_MS);
        return all.map(({ path: found, type }) => ({ name: nameOf(found), path: found, type, ignored: false }));
      },
      readFile: (directory, path) => this.#readFile(directory, path),
      findText: () => this.#lacks('search in files', 'search with names: true finds files by their names'),
      findFiles: async (directory, query, limit) => {
        const path = `/api/fs/find${inLocation(directory, { query, limit, type: 'file' })}`;
        const all = await this.#requests.data(path, z.array(wireFileSchema), SEARCH_TIMEOUT_MS);
        return all.filter(({ type }) => type === 'file').map(({ path: found }) => found);
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
    const found = await this.#requests.find(sessionPath(id), wireSessionSchema);
    return found && sessionOf(found);
  }

  async #create(title: string | undefined, directory: string | undefined): Promise<Session> {
    if (directory === undefined || directory === '') throw new NotPossibleError(NO_DIRECTORY);
    // The preview takes no title, and makes one itself.
    const body = { location: { directory }, ...(title !== undefined && !this.#isPreview && { title }) };
    return sessionOf(await this.#requests.post('/api/session', body, wireSessionSchema));
  }

  /** Active sessions in a directory, or in any if it is empty. `unknown`: those beyond `MAX_ACTIVE`. */
  async #activeIn(directory: string): Promise<Readonly<Record<'inside' | 'unknown', readonly string[]>>> {
    const all = Object.keys(await this.#requests.data('/api/session/active', wireActiveSchema));
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
      return { ...(await this.#requests.page(path, messagePage(), limit <= 1)), asked: limit };
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
    const all = await Promise.all(
      inside.map((id) => this.#requests.find(`${sessionPath(id)}/${kind}`, z.array(schema))),
    );
    return all.flatMap((found) => found ?? []);
  }

  async #answer(directory: string, id: string, answers: readonly (readonly string[])[]): Promise<boolean> {
    const found = (await this.#forms(directory)).find(({ question }) => question.id === id);
    if (found === undefined) return false;
    const session = sessionPath(found.question.sessionID);
    if (found.form === undefined)
      return await this.#requests.did('POST', `${session}/question/${id}/reply`, { answers });
    const made = formAnswer(found.form.fields, answers);
    if ('problem' in made) throw new NotPossibleError(`Nothing was answered: ${made.problem}.`);
    return await this.#requests.settled('POST', `${session}/form/${id}/reply`, { answer: made.answer });
  }

  /** A repeated prompt runs once. Agent and model stay the session's. */
  async #prompt({ sessionId, messageId, text, agent, model }: Prompt): Promise<void> {
    const session = sessionPath(sessionId);
    if (agent !== undefined) await this.#requests.did('POST', `${session}/agent`, { agent });
    if (model !== undefined)
      await this.#requests.did('POST', `${session}/model`, {
        model: { providerID: model.providerID, id: model.modelID },
      });
    // 2.x commits the revert itself; on the preview the new turn would count as undone too.
    if (this.#isPreview && (await this.#session(sessionId))?.revert != null)
      await this.#requests.did('POST', `${session}/revert/commit`);
    const body = { id: messageId, ...(this.#isPreview ? { prompt: { text } } : { text }), delivery: 'queue' };
    const textSchema = z.object({ text: z.string() }).optional();
    const taken = z.object({ payload: textSchema, prompt: textSchema });
    const { payload, prompt } = await this.#requests.post(`${session}/prompt`, body, taken);
    const admitted = (payload ?? prompt)?.text;
    if (admitted !== undefined && admitted !== text)
      throw new RequestError('status', `opencode has message ${messageId} with another text`, { status: 409 });
  }

  async #readFile(directory: string, path: string): ReturnType<OpencodeApi['readFile']> {
    const place = path.split('/').map(encodeURIComponent).join('/');
    const found = await this.#requests.file(`/api/fs/read/${place}${inLocation(directory)}`);
    if (found === undefined) return { type: 'text', content: '' };
    const { headers, text } = found;
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
    const message = await this.#requests.find(`${sessionPath(id)}/message/${messageId}`, wireMessageSchema);
    if (message === undefined) return undefined;
    const diffs = await this.#diffs(id, messageId);
    return { info: { id: messageId, role: message.type === 'user' ? 'user' : 'assistant', summary: { diffs } } };
  }

  async #diffs(id: string, from?: string): Promise<z.infer<typeof wireDiffSchema>[]> {
    if (this.#isPreview) return await this.#lacks('show what a session changed', WITH_RELEASE);
    const path = `${sessionPath(id)}/diff${queryOf({ from })}`;
    return await this.#requests.data(path, z.array(wireDiffSchema), SEARCH_TIMEOUT_MS);
  }

  #lacks(what: string, alternative: string): Promise<never> {
    const version = this.#isPreview ? 'This preview of OpenCode 2' : 'OpenCode 2';
    return Promise.reject(new NotPossibleError(`${version} cannot ${what}; ${alternative}.`));
  }
}

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

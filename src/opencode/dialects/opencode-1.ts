import { createOpencodeClient } from '@opencode-ai/sdk/v2/client';
import * as z from 'zod';

import type { OpencodeApi, Page, PageQuery } from '../api.ts';
import { openEvents } from '../events.ts';
import { fittingJson } from '../fitting.ts';
import { said, wordsOf } from '../said.ts';
import { changedMessageSchema, fileContentSchema, fileNodeSchema, textMatchSchema } from '../inspect-schema.ts';
import {
  agentSchema,
  cursorSchema,
  messageSchema,
  permissionSchema,
  providersSchema,
  questionSchema,
  sessionSchema,
  sessionsSchema,
  sessionStatusesSchema,
} from '../schema.ts';
import {
  type Connection,
  type Exchange,
  exchange,
  MAX_BODY_BYTES,
  RequestError,
  type RequestLimits,
} from '../../http/exchange.ts';

type Sdk = ReturnType<typeof createOpencodeClient>;

/** When a failed call may be repeated by another endpoint: `always` if it is idempotent, `unsent` if nothing was sent, `never` if the caller decides. */
export type Repeat = 'always' | 'unsent' | 'never';

/** One call to OpenCode 1 (1.18.10 to 1.18.33). */
interface Route<Args extends readonly unknown[], Result> {
  readonly label: string;
  readonly repeat: Repeat;
  readonly timeoutMs: number;
  /** An answer that is too large is asked for again, with fewer messages or with its long strings cut. */
  readonly mayBeLarge: boolean;
  readonly ask: (sdk: Sdk, ...args: Args) => Promise<SdkResult>;
  readonly read: (result: SdkResult, label: string) => Result;
}

/** Without `events`, which has no single answer. */
export type CallName = Exclude<keyof OpencodeApi, 'events' | 'isIdempotent'>;

type Calls = {
  readonly [Name in CallName]: Route<Parameters<OpencodeApi[Name]>, Awaited<ReturnType<OpencodeApi[Name]>>>;
};

/** A cold instance starts its plugins and MCP servers on the first request that needs them; without any it took 1.2 s. */
const CALL_TIMEOUT_MS = 15_000;
/** For a search through a large project; shorter than the timeout of any client. */
const SEARCH_TIMEOUT_MS = 30_000;
/** Bytes of one string in an answer that is too large: first longer than most answers of a model, then only the beginning. */
const CUTS = [64 * 1024, 1024];

function route<Args extends readonly unknown[], Result>(
  label: string,
  repeat: Repeat,
  ask: (sdk: Sdk, ...args: Args) => Promise<SdkResult>,
  read: (result: SdkResult, label: string) => Result,
  timeoutMs = CALL_TIMEOUT_MS,
): Route<Args, Result> {
  return { label, repeat, timeoutMs, mayBeLarge: false, ask, read };
}

function large<Args extends readonly unknown[], Result>(one: Route<Args, Result>): Route<Args, Result> {
  return { ...one, mayBeLarge: true };
}

export const CALLS: Calls = {
  sessions: large(
    route(
      'GET /session',
      'always',
      (sdk, { directory, rootsOnly, search, limit }) =>
        sdk.session.list({
          ...(directory !== undefined && { directory }),
          ...(rootsOnly && { roots: true }),
          ...(search !== undefined && { search }),
          ...(limit !== undefined && { limit }),
        }),
      json(sessionsSchema),
    ),
  ),
  session: large(
    route('GET /session/:id', 'always', (sdk, id) => sdk.session.get({ sessionID: id }), ifThere(sessionSchema)),
  ),
  createSession: route(
    'POST /session',
    'unsent',
    (sdk, title, directory) =>
      sdk.session.create({ ...(title !== undefined && { title }), ...(directory !== undefined && { directory }) }),
    json(sessionSchema),
  ),
  fork: route(
    'POST /session/:id/fork',
    'unsent',
    (sdk, id, before) => sdk.session.fork({ sessionID: id, ...(before !== undefined && { messageID: before }) }),
    json(sessionSchema),
  ),
  rename: route(
    'PATCH /session/:id',
    'unsent',
    (sdk, id, title) => sdk.session.update({ sessionID: id, title }),
    json(sessionSchema),
  ),
  remove: route('DELETE /session/:id', 'unsent', (sdk, id) => sdk.session.delete({ sessionID: id }), wasThere),
  statuses: route(
    'GET /session/status',
    'always',
    (sdk, directory) => sdk.session.status({ directory }),
    (result, label) => new Map(Object.entries(parse(sessionStatusesSchema, result, label))),
  ),
  messages: large(route('GET /session/:id/message', 'always', askMessages, page(messageSchema))),
  message: large(route('GET /session/:id/message/:id', 'always', askMessage, ifThere(messageSchema))),
  permissions: large(
    route(
      'GET /permission',
      'always',
      (sdk, directory) => sdk.permission.list({ directory }),
      json(z.array(permissionSchema)),
    ),
  ),
  questions: large(
    route(
      'GET /question',
      'always',
      (sdk, directory) => sdk.question.list({ directory }),
      json(z.array(questionSchema)),
    ),
  ),
  replyPermission: route(
    'POST /permission/:id/reply',
    'unsent',
    (sdk, directory, requestID, reply, message) =>
      sdk.permission.reply({ requestID, directory, reply, ...(message !== undefined && { message }) }),
    wasThere,
  ),
  replyQuestion: route(
    'POST /question/:id/reply',
    'unsent',
    (sdk, directory, requestID, answers) =>
      sdk.question.reply({ requestID, directory, answers: answers.map((labels) => [...labels]) }),
    wasThere,
  ),
  rejectQuestion: route(
    'POST /question/:id/reject',
    'unsent',
    (sdk, directory, requestID) => sdk.question.reject({ requestID, directory }),
    wasThere,
  ),
  agents: route(
    'GET /agent',
    'always',
    (sdk, directory) => sdk.app.agents({ directory }),
    (result, label) =>
      parse(z.array(agentSchema), result, label)
        .filter(({ mode, hidden }) => mode !== 'subagent' && hidden !== true)
        .map(({ name }) => name),
  ),
  models: route(
    'GET /config/providers',
    'always',
    (sdk, directory) => sdk.config.providers({ directory }),
    (result, label) =>
      parse(providersSchema, result, label).providers.flatMap(({ id, models }) =>
        Object.keys(models).map((modelID) => ({ providerID: id, modelID })),
      ),
  ),
  // Only by the endpoint of its event stream: see turns/delivery.ts.
  prompt: route(
    'POST /session/:id/prompt_async',
    'never',
    (sdk, { sessionId, messageId, partId, text, agent, model }) =>
      sdk.session.promptAsync({
        sessionID: sessionId,
        messageID: messageId,
        parts: [{ id: partId, type: 'text', text }],
        ...(agent !== undefined && { agent }),
        ...(model !== undefined && { model }),
      }),
    taken,
  ),
  // Idempotent; the caller verifies by status.
  abort: route('POST /session/:id/abort', 'always', (sdk, id) => sdk.session.abort({ sessionID: id }), done),
  showToast: route(
    'POST /tui/show-toast',
    'unsent',
    (sdk, directory, message) => sdk.tui.showToast({ directory, message, variant: 'info' }),
    done,
  ),
  listFiles: route(
    'GET /file',
    'always',
    (sdk, directory, path) => sdk.file.list({ directory, path }),
    json(z.array(fileNodeSchema)),
    SEARCH_TIMEOUT_MS,
  ),
  readFile: route(
    'GET /file/content',
    'always',
    (sdk, directory, path) => sdk.file.read({ directory, path }),
    json(fileContentSchema),
    SEARCH_TIMEOUT_MS,
  ),
  findText: route(
    'GET /find',
    'always',
    (sdk, directory, pattern) => sdk.find.text({ directory, pattern }),
    json(z.array(textMatchSchema)),
    SEARCH_TIMEOUT_MS,
  ),
  findFiles: route(
    'GET /find/file',
    'always',
    (sdk, directory, query, limit) => sdk.find.files({ directory, query, limit, type: 'file' }),
    json(z.array(z.string())),
    SEARCH_TIMEOUT_MS,
  ),
  changedMessages: large(
    route('GET /session/:id/message', 'always', askMessages, page(changedMessageSchema), SEARCH_TIMEOUT_MS),
  ),
  changedMessage: large(
    route('GET /session/:id/message/:id', 'always', askMessage, ifThere(changedMessageSchema), SEARCH_TIMEOUT_MS),
  ),
};

function askMessages(sdk: Sdk, sessionID: string, { limit, before }: PageQuery): Promise<SdkResult> {
  return sdk.session.messages({ sessionID, limit, ...(before !== undefined && { before }) });
}

function askMessage(sdk: Sdk, sessionID: string, messageID: string): Promise<SdkResult> {
  return sdk.session.message({ sessionID, messageID });
}

export function opencode1Api(connection: Connection, signal?: AbortSignal): OpencodeApi {
  const sdks = new Map<string, Sdk>();
  const sdkWithin = (timeoutMs: number, maxStringBytes: number | undefined): Sdk => {
    const key = `${timeoutMs} ${maxStringBytes}`;
    const known = sdks.get(key);
    if (known !== undefined) return known;
    const fetch = guardedFetch(connection, signal, { timeoutMs, maxBytes: MAX_BODY_BYTES, maxStringBytes });
    const sdk = createOpencodeClient({ baseUrl: connection.endpoint.url, fetch, parseAs: 'text' });
    sdks.set(key, sdk);
    return sdk;
  };
  const call = async (
    route: Route<readonly never[], unknown>,
    args: readonly never[],
    [maxStringBytes, ...shorter]: readonly (number | undefined)[] = [undefined, ...(route.mayBeLarge ? CUTS : [])],
  ): Promise<unknown> => {
    const { label, timeoutMs, ask, read } = route;
    try {
      return read(await ask(sdkWithin(timeoutMs, maxStringBytes), ...args), label);
    } catch (error) {
      if (!(error instanceof RequestError) || error.kind !== 'too-large' || shorter.length === 0) throw error;
      const fewer = withFewer(args);
      return await (fewer === undefined ? call(route, args, shorter) : call(route, fewer));
    }
  };
  const calls = Object.entries(CALLS as Record<CallName, Route<readonly never[], unknown>>).map(([name, route]) => [
    name,
    (...args: never[]) => call(route, args),
  ]);
  const events: OpencodeApi['events'] = (directory, eventsSignal = signal) =>
    openEvents(connection, `/event?directory=${encodeURIComponent(directory)}`, eventsSignal);
  return { ...(Object.fromEntries(calls) as Pick<OpencodeApi, CallName>), events, isIdempotent: false };
}

/** The arguments with an eighth of the messages; undefined for a call without pages. */
function withFewer(args: readonly never[]): readonly never[] | undefined {
  const [sessionId, query] = args as readonly (string | Partial<PageQuery> | undefined)[];
  if (typeof query !== 'object' || query.limit === undefined || query.limit <= 1) return undefined;
  return [sessionId, { ...query, limit: Math.ceil(query.limit / 8) }] as never[];
}

/** The SDK's transport, by the same bounded exchange as all other requests. */
function guardedFetch(
  connection: Connection,
  signal: AbortSignal | undefined,
  limits: Omit<RequestLimits, 'signal'>,
): typeof fetch {
  return async (input, init) => {
    const request = new Request(input, init);
    const path = request.url.slice(connection.endpoint.url.length);
    const body = request.body === null ? {} : { body: await request.text() };
    const answer = await exchange(connection, path, { method: request.method, ...body }, { ...limits, signal });
    return responseOf(answer, `${request.method} ${request.url.split('?', 1)[0]}`);
  };
}

/** The statuses for which `Response` takes no body, and the last one that it takes. */
const BODILESS = new Set([204, 205, 304]);
const LAST_STATUS = 599;

/** Without the content type: the SDK fails at "text/html" with an error of its own. */
function responseOf({ status, headers, text }: Exchange, label: string): Response {
  if (status > LAST_STATUS) throw new RequestError('status', `${label}: HTTP ${status}`, { status });
  // opencode's own 404 (of an unknown session, say) is JSON.
  if (status === 404 && /^\s*</.test(text))
    throw new RequestError('malformed', `${label}: HTTP 404 with a web page, which is not opencode's`);
  const cursor = headers['x-next-cursor'];
  return new Response(BODILESS.has(status) ? null : text, {
    status,
    headers: typeof cursor === 'string' ? { 'x-next-cursor': cursor } : {},
  });
}

interface SdkResult {
  readonly data?: unknown;
  readonly error?: unknown;
  readonly response?: Response | undefined;
}

function isNotFound(result: SdkResult): boolean {
  return result.response?.status === 404;
}

/** False for a 404. */
function wasThere(result: SdkResult, label: string): boolean {
  if (isNotFound(result)) return false;
  done(result, label);
  return true;
}

/** opencode answers 204 or JSON; a proxy may answer an empty 200. */
function done(result: SdkResult, label: string): void {
  succeed(result, label);
  if (result.response?.status !== 204) fittingJson(z.unknown(), String(result.data), label);
}

/** opencode answers a prompt with 204; JSON comes from a proxy. */
function taken(result: SdkResult, label: string): void {
  succeed(result, label);
  const status = result.response?.status;
  if (status !== 204) throw new RequestError('malformed', `${label}: HTTP ${status} instead of 204`);
}

function json<T>(schema: z.ZodType<T>): (result: SdkResult, label: string) => T {
  return (result, label) => parse(schema, result, label);
}

function ifThere<T>(schema: z.ZodType<T>): (result: SdkResult, label: string) => T | undefined {
  return (result, label) => (isNotFound(result) ? undefined : parse(schema, result, label));
}

function page<M>(schema: z.ZodType<M>): (result: SdkResult, label: string) => Page<M> {
  return (result, label) => {
    const messages = parse(z.array(schema), result, label);
    return { messages, ...olderCursorOf(result, label) };
  };
}

function succeed(result: SdkResult, label: string): void {
  if (result.error instanceof Error) throw result.error;
  const status = result.response?.status;
  if (status === undefined || status >= 400) {
    throw new RequestError('status', `${label}: HTTP ${status ?? 'unknown'}${detail(result.error)}`, {
      ...(status !== undefined && { status }),
    });
  }
}

/** @param result parsed as text: if the SDK parses JSON itself, it throws the beginning of the body as an error */
function parse<T>(schema: z.ZodType<T>, result: SdkResult, label: string): T {
  succeed(result, label);
  return fittingJson(schema, String(result.data), label);
}

/** A malformed cursor is an error: without it there would seem to be no older messages. */
function olderCursorOf({ response }: SdkResult, label: string): { readonly olderCursor?: string } {
  const cursor = response?.headers.get('x-next-cursor');
  if (!cursor) return {};
  if (!cursorSchema.safeParse(cursor).success)
    throw new RequestError('malformed', `${label}: unexpected answer at x-next-cursor: not a cursor`);
  return { olderCursor: cursor };
}

/** opencode's errors are JSON; a node service refuses in plain text. */
function detail(error: unknown): string {
  // Not a web page of a proxy.
  if (typeof error === 'string' && error !== '' && !/^\s*</.test(error)) return said(error);
  const text = wordsOf(error);
  return text === undefined ? '' : said(text);
}

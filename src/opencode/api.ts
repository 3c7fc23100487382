import { createOpencodeClient } from '@opencode-ai/sdk/v2/client';
import * as z from 'zod';

import { quoted, quoteName } from '../plain-text.ts';
import { type EventStream, openEvents } from './events.ts';
import {
  agentSchema,
  cursorSchema,
  type Message,
  messageSchema,
  type Permission,
  permissionSchema,
  providersSchema,
  type Question,
  questionSchema,
  type Session,
  sessionSchema,
  sessionsSchema,
  type SessionStatus,
  sessionStatusesSchema,
} from './schema.ts';
import { type Connection, exchange, MAX_BODY_BYTES, RequestError } from './transport.ts';

/** A prompt of ours. Made once, before the first attempt; every further attempt sends this same value, so that it can never run twice. */
export interface Prompt {
  readonly sessionId: string;
  readonly messageId: string;
  readonly partId: string;
  readonly text: string;
  /** Default: the session's, then the configured one. */
  readonly agent?: string;
  readonly model?: ModelName;
}

/** As the provider and opencode name it. */
export interface ModelName {
  readonly providerID: string;
  readonly modelID: string;
}

/** How a permission request is settled; `always`: also what fits the same patterns later on. */
export type PermissionReply = 'once' | 'always' | 'reject';

export interface MessagePage {
  /** Oldest first. */
  readonly messages: readonly Message[];
  /** Give it as `before` for the page of older ones; undefined at the beginning of the session. */
  readonly olderCursor?: string;
}

/**
 * The calls this program makes to one opencode server, with checked answers. Every call is
 * bounded in time and size and rejects with `RequestError`.
 *
 * `directory` parameters are code execution on the other side (opencode loads that
 * directory's plugins and MCP servers): only an instance's own `/path` or a session of its own may be
 * their origin. Calls with a session id need none.
 */
export interface OpencodeApi {
  /** Sessions of the instance's project, most recently updated first; of exactly one directory if it is given. */
  sessions(query: {
    readonly directory?: string;
    readonly rootsOnly?: boolean;
    readonly search?: string;
    readonly limit?: number;
  }): Promise<readonly Session[]>;
  /** Undefined where there is none with this id. */
  session(sessionId: string): Promise<Session | undefined>;
  createSession(title?: string): Promise<Session>;
  /** What is not idle, by session id. */
  statuses(directory: string): Promise<ReadonlyMap<string, SessionStatus>>;
  messages(sessionId: string, query: { readonly limit: number; readonly before?: string }): Promise<MessagePage>;
  /** Undefined where there is none with this id. */
  message(sessionId: string, messageId: string): Promise<Message | undefined>;
  permissions(directory: string): Promise<readonly Permission[]>;
  questions(directory: string): Promise<readonly Question[]>;
  /** False where no such request waits in that directory any more. opencode answers true for a stale one too: verify by status. */
  replyPermission(directory: string, id: string, reply: PermissionReply, message?: string): Promise<boolean>;
  /** One list of labels for each question. False as above. */
  replyQuestion(directory: string, id: string, answers: readonly (readonly string[])[]): Promise<boolean>;
  /** False as above. */
  rejectQuestion(directory: string, id: string): Promise<boolean>;
  /** Names of the agents that can be sent to. */
  agents(directory: string): Promise<readonly string[]>;
  models(directory: string): Promise<readonly ModelName[]>;
  /** Resolves when opencode has accepted the prompt; it starts up to a second later. */
  prompt(prompt: Prompt): Promise<void>;
  /** opencode answers true whether or not something ran: verify by status. */
  abort(sessionId: string): Promise<void>;
  events(directory: string, signal?: AbortSignal): Promise<EventStream>;
}

/** A cold instance starts its plugins and MCP servers on the first request that needs them; it took 1.2 s bare. */
const CALL_TIMEOUT_MS = 15_000;

/** Of what opencode says of an error: enough to know it by, in one line of a result. */
const MAX_SAID_CHARS = 300;

export function createApi(connection: Connection, signal?: AbortSignal): OpencodeApi {
  const client = createOpencodeClient({
    baseUrl: connection.endpoint.url,
    fetch: guardedFetch(connection, signal),
    parseAs: 'text',
  });
  return {
    async sessions(query) {
      const result = await client.session.list({
        ...(query.directory === undefined ? {} : { directory: query.directory }),
        ...(query.rootsOnly ? { roots: true } : {}),
        ...(query.search === undefined ? {} : { search: query.search }),
        ...(query.limit === undefined ? {} : { limit: query.limit }),
      });
      return parse(sessionsSchema, result, 'GET /session');
    },
    async session(sessionId) {
      const result = await client.session.get({ sessionID: sessionId });
      return isNotFound(result) ? undefined : parse(sessionSchema, result, 'GET /session/:id');
    },
    async createSession(title) {
      const result = await client.session.create(title === undefined ? {} : { title });
      return parse(sessionSchema, result, 'POST /session');
    },
    async statuses(directory) {
      const result = await client.session.status({ directory });
      return new Map(Object.entries(parse(sessionStatusesSchema, result, 'GET /session/status')));
    },
    async messages(sessionId, { limit, before }) {
      const result = await client.session.messages({
        sessionID: sessionId,
        limit,
        ...(before === undefined ? {} : { before }),
      });
      const messages = parse(z.array(messageSchema), result, 'GET /session/:id/message');
      return { messages, ...olderCursorOf(result, 'GET /session/:id/message') };
    },
    async message(sessionId, messageId) {
      const result = await client.session.message({ sessionID: sessionId, messageID: messageId });
      return isNotFound(result) ? undefined : parse(messageSchema, result, 'GET /session/:id/message/:id');
    },
    async permissions(directory) {
      return parse(z.array(permissionSchema), await client.permission.list({ directory }), 'GET /permission');
    },
    async questions(directory) {
      return parse(z.array(questionSchema), await client.question.list({ directory }), 'GET /question');
    },
    async replyPermission(directory, id, reply, message) {
      const result = await client.permission.reply({
        requestID: id,
        directory,
        reply,
        ...(message === undefined ? {} : { message }),
      });
      return isThere(result, 'POST /permission/:id/reply');
    },
    async replyQuestion(directory, id, answers) {
      const result = await client.question.reply({
        requestID: id,
        directory,
        answers: answers.map((labels) => [...labels]),
      });
      return isThere(result, 'POST /question/:id/reply');
    },
    async rejectQuestion(directory, id) {
      return isThere(await client.question.reject({ requestID: id, directory }), 'POST /question/:id/reject');
    },
    async agents(directory) {
      const agents = parse(z.array(agentSchema), await client.app.agents({ directory }), 'GET /agent');
      return agents.filter(({ mode, hidden }) => mode !== 'subagent' && hidden !== true).map(({ name }) => name);
    },
    async models(directory) {
      const { providers } = parse(
        providersSchema,
        await client.config.providers({ directory }),
        'GET /config/providers',
      );
      return providers.flatMap(({ id, models }) => Object.keys(models).map((modelID) => ({ providerID: id, modelID })));
    },
    async prompt({ sessionId, messageId, partId, text, agent, model }) {
      const result = await client.session.promptAsync({
        sessionID: sessionId,
        messageID: messageId,
        parts: [{ id: partId, type: 'text', text }],
        ...(agent === undefined ? {} : { agent }),
        ...(model === undefined ? {} : { model }),
      });
      succeed(result, 'POST /session/:id/prompt_async');
    },
    async abort(sessionId) {
      succeed(await client.session.abort({ sessionID: sessionId }), 'POST /session/:id/abort');
    },
    events: (directory, eventsSignal = signal) =>
      openEvents(connection, `/event?directory=${encodeURIComponent(directory)}`, eventsSignal),
  };
}

/** The SDK's transport: its requests go through the one bounded exchange that probing uses too. */
export function guardedFetch(
  connection: Connection,
  signal: AbortSignal | undefined,
  timeoutMs = CALL_TIMEOUT_MS,
): typeof fetch {
  return async (input, init) => {
    const request = new Request(input, init);
    const path = request.url.slice(connection.endpoint.url.length);
    const body = request.body === null ? {} : { body: await request.text() };
    const answer = await exchange(
      connection,
      path,
      { method: request.method, ...body },
      { timeoutMs, maxBytes: MAX_BODY_BYTES, signal },
    );
    const empty = answer.status === 204 || answer.status === 304;
    const headers = Object.entries(answer.headers).filter(
      (pair): pair is [string, string] => typeof pair[1] === 'string',
    );
    return new Response(empty ? null : answer.text, { status: answer.status, headers });
  };
}

interface SdkResult {
  readonly data?: unknown;
  readonly error?: unknown;
  readonly response?: Response | undefined;
}

export function isNotFound(result: SdkResult): boolean {
  return result.response?.status === 404;
}

/** What is not there any more answers 404. */
function isThere(result: SdkResult, label: string): boolean {
  if (isNotFound(result)) return false;
  succeed(result, label);
  return true;
}

export function succeed(result: SdkResult, label: string): void {
  if (result.error instanceof Error) throw result.error;
  const status = result.response?.status;
  if (status === undefined || status >= 400) {
    throw new RequestError('status', `${label}: HTTP ${status ?? 'unknown'}${detail(result.error)}`, {
      ...(status !== undefined && { status }),
    });
  }
}

/** @param result of a client that parses as text: the SDK's own parsing throws the body's beginning, as an error of nobody's */
export function parse<T>(schema: z.ZodType<T>, result: SdkResult, label: string): T {
  succeed(result, label);
  const parsed = schema.safeParse(jsonOf(result.data, label));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new RequestError(
      'malformed',
      `${label}: unexpected answer at ${placeOf(issue?.path ?? [])}: ${issue?.message}`,
    );
  }
  return parsed.data;
}

function jsonOf(text: unknown, label: string): unknown {
  try {
    return JSON.parse(String(text)) as unknown;
  } catch (cause) {
    throw new RequestError('malformed', `${label}: the body is not JSON`, { cause });
  }
}

/** Keys of an answer are remote words too. */
function placeOf(path: readonly PropertyKey[]): string {
  return path.length === 0 ? 'its top' : quoteName(path.map(String).join('.').slice(0, 200));
}

/** Where a page of messages goes on. One that does not fit is an error: without it there would seem to be no older ones. */
export function olderCursorOf({ response }: SdkResult, label: string): { readonly olderCursor?: string } {
  const cursor = response?.headers.get('x-next-cursor');
  if (!cursor) return {};
  if (!cursorSchema.safeParse(cursor).success)
    throw new RequestError('malformed', `${label}: unexpected answer at x-next-cursor: not a cursor`);
  return { olderCursor: cursor };
}

/** opencode's errors are `{name, data: {message}}`; a node service refuses in plain text. */
function detail(error: unknown): string {
  // Not a web page of something in between.
  if (typeof error === 'string' && error !== '' && !/^\s*</.test(error)) return said(error);
  const parsed = z
    .object({ name: z.string().optional(), data: z.object({ message: z.string() }).partial().optional() })
    .safeParse(error);
  const text = parsed.success ? (parsed.data.data?.message ?? parsed.data.name) : undefined;
  return text === undefined ? '' : said(text);
}

function said(text: string): string {
  return `; it says ${quoted(text, MAX_SAID_CHARS)}`;
}

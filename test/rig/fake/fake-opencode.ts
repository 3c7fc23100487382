import type { IncomingMessage, ServerResponse } from 'node:http';
import { text as readText } from 'node:stream/consumers';

import type { PermissionRequest, QuestionRequest } from '@opencode-ai/sdk/v2/client';

import { give, WEB_PAGE } from '../answer.ts';
import { ANSWERS } from './fake-answers.ts';
import { findRoute, play, type FakeRoute, type Override } from './fake-http.ts';
import { newId, type FakeSession } from './fake-objects.ts';
import { FakeState } from './fake-state.ts';
import { listenHttp } from '../http-listener.ts';
import { basicAuth } from '../json-request.ts';

/** Requests in flight, of one server or shared by several. Event streams do not count. */
export interface LoadGauge {
  current: number;
  max: number;
}

export interface FakeOptions {
  readonly port?: number;
  readonly version?: string;
  readonly directory?: string;
  readonly sessions?: ReadonlyArray<Partial<FakeSession>>;
  /** Requires Basic auth on every route, health included. */
  readonly password?: string;
  /** Default 10 s, as the real one. */
  readonly heartbeatMs?: number;
  /** The immediate answer to a prompt. Undefined: the turn stays busy until `state.finish`. */
  readonly reply?: (text: string) => string | undefined;
  readonly load?: LoadGauge;
}

export interface FakeOpencode extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly directory: string;
  /** The data of the server; changes apply to the next request. */
  readonly state: FakeState;
  /** Event streams open now. */
  readonly openStreams: number;
  readonly load: Readonly<LoadGauge>;
  /** Requests so far, counted by their head. Unknown paths count as `other`. */
  count(route: FakeRoute | 'other'): number;
  /** Overrides a route for all requests or the next `times`; `undefined` restores it. */
  override(route: FakeRoute, override: Override | undefined, times?: number): void;
  addSession(fields?: Partial<FakeSession>): FakeSession;
  addPermission(fields: Partial<PermissionRequest> & Pick<PermissionRequest, 'sessionID'>): PermissionRequest;
  addQuestion(fields: Partial<QuestionRequest> & Pick<QuestionRequest, 'sessionID'>): QuestionRequest;
  /** Broadcasts a new event to the streams of the session's directory, or the fake's own, and to the global ones. */
  emit(type: string, properties: Readonly<Record<string, unknown>>): void;
  /** Writes what `next` returns to every stream of its directory, with backpressure, until it returns undefined or the stream ends. */
  flood(next: () => string | undefined): Promise<void>;
  /** Ends or breaks every open event stream. */
  endStreams(how?: 'end' | 'destroy'): void;
  close(): Promise<void>;
}

/** A fake opencode server: it answers in the real shapes, without a model. A process can run hundreds of them. */
export async function startFakeOpencode(options: FakeOptions = {}): Promise<FakeOpencode> {
  /** Open streams by directory; undefined for a global one. */
  const streams = new Map<ServerResponse, string | undefined>();
  const counts = new Map<FakeRoute | 'other', number>();
  const overrides = new Map<FakeRoute, { readonly override: Override; left: number }>();
  const load: LoadGauge = options.load ?? { current: 0, max: 0 };
  const directory = options.directory ?? '/home/user/project';
  const state = new FakeState(directory, options.version ?? '1.18.33', emit);
  for (const session of options.sessions ?? []) state.addSession(session);
  let heartbeat: NodeJS.Timeout | undefined;

  const listener = await listenHttp((incoming, response) => {
    serve(incoming, response).catch(() => response.destroy());
  }, options.port);

  async function serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? '/', 'http://127.0.0.1');
    const found = findRoute(incoming.method ?? 'GET', url.pathname);
    const route = found?.route ?? 'other';
    const isStream = route === 'GET /event' || route === 'GET /global/event';
    counts.set(route, (counts.get(route) ?? 0) + 1);
    if (!isStream) measureLoad(response);
    const { authorization } = basicAuth(options.password);
    if (authorization !== undefined && incoming.headers.authorization !== authorization) {
      incoming.resume();
      give(response, { status: 401, headers: { 'www-authenticate': 'Basic realm="Secure Area"' } });
      return;
    }
    const override = overrideOf(route);
    if (override && !(await play(override, incoming, response))) return;
    if (isStream) {
      openStream(
        response,
        route === 'GET /global/event' ? undefined : (url.searchParams.get('directory') ?? directory),
      );
      return;
    }
    const body = await readText(incoming);
    const prompted = state.prompts.length;
    give(response, found ? ANSWERS[found.route]({ url, params: found.params, body }, state) : WEB_PAGE);
    for (const prompt of state.prompts.slice(prompted)) replyTo(prompt.sessionID, prompt.body.parts?.[0]?.text ?? '');
  }

  function measureLoad(response: ServerResponse): void {
    load.current += 1;
    load.max = Math.max(load.max, load.current);
    response.once('close', () => (load.current -= 1));
  }

  function overrideOf(route: FakeRoute | 'other'): Override | undefined {
    const entry = route === 'other' ? undefined : overrides.get(route);
    if (!entry || entry.left <= 0) return undefined;
    entry.left -= 1;
    return entry.override;
  }

  function replyTo(sessionID: string, text: string): void {
    const reply = options.reply?.(text);
    // After the 204 has gone out, as with the real one.
    if (reply !== undefined) setImmediate(() => state.finish(sessionID, reply));
  }

  function openStream(response: ServerResponse, scope: string | undefined): void {
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    streams.set(response, scope);
    response.once('close', () => streams.delete(response));
    const hello = { id: newId('evt'), type: 'server.connected', properties: {} };
    send(response, scope === undefined ? { payload: hello } : hello);
    heartbeat ??= setInterval(() => emit('server.heartbeat', {}), options.heartbeatMs ?? 10_000).unref();
  }

  function emit(type: string, properties: Readonly<Record<string, unknown>>): void {
    const event = { id: newId('evt'), type, properties };
    // Events of the server itself go to all streams, without a directory.
    const isServerEvent = type.startsWith('server.');
    const where = state.sessions.get(String(properties['sessionID']))?.directory ?? directory;
    const wrapped = isServerEvent ? { payload: event } : { directory: where, payload: event };
    for (const [stream, scope] of streams) {
      if (scope === undefined) send(stream, wrapped);
      // Streams of other directories do not carry the event.
      else if (scope === where || isServerEvent) send(stream, event);
    }
  }

  async function close(): Promise<void> {
    clearInterval(heartbeat);
    await listener.close();
  }

  return {
    url: listener.url,
    port: listener.port,
    directory,
    state,
    load,
    get openStreams() {
      return streams.size;
    },
    count: (route) => counts.get(route) ?? 0,
    override(route, override, times = Infinity) {
      if (override) overrides.set(route, { override, left: times });
      else overrides.delete(route);
    },
    addSession: (fields) => state.addSession(fields),
    addPermission: (fields) => state.addPermission(fields),
    addQuestion: (fields) => state.addQuestion(fields),
    emit,
    async flood(next) {
      const here = [...streams].filter(([, scope]) => scope === directory).map(([stream]) => stream);
      await Promise.all(here.map((stream) => writeAll(stream, next)));
    },
    endStreams(how = 'end') {
      for (const stream of streams.keys()) stream[how]();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function writeAll(stream: ServerResponse, next: () => string | undefined): Promise<void> {
  for (let text = next(); text !== undefined && !stream.destroyed; text = next()) {
    if (stream.write(text)) continue;
    await new Promise<void>((resolve) => {
      stream.once('drain', resolve).once('close', resolve);
    });
    stream.removeAllListeners('drain').removeAllListeners('close');
  }
}

function send(stream: ServerResponse, event: object): void {
  stream.write(`data: ${JSON.stringify(event)}\n\n`);
}

import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';

import { type HttpListener, listenHttp } from '../http-listener.ts';

/** The page's files, as the build makes them. */
const assets = import(new URL('../../../scripts/page-assets.mjs', import.meta.url).href).then(
  async (script: { pageAssets(): Promise<Readonly<Record<string, string>>> }) =>
    new Map(Object.entries(await script.pageAssets())),
);
const PREFIX = '/opencode-mcp/page/';
const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};
/** The content security policy that the node service sends. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export type PageLine = Readonly<Record<string, unknown>>;
type Answer = { readonly status?: number; readonly body: unknown };

/** A scripted API of the page: serves the real files, streams a test's lines and records posts. */
export interface PageApi extends AsyncDisposable {
  readonly url: string;
  /** Path and body of each POST, in order. */
  readonly posts: readonly { readonly path: string; readonly body: PageLine }[];
  /** Path and query of each GET, in order. */
  readonly gets: readonly string[];
  /** Sends the whole state to every open stream of the list, and to each later one. */
  setFleet(fleet: PageLine): void;
  /** Sets the first lines of that session's streams. */
  setSession(id: string, lines: readonly PageLine[]): void;
  /** Sends lines to every open stream of that session. */
  push(id: string, ...lines: readonly PageLine[]): void;
  /** Sets the answer to `before=CURSOR`. */
  setOlder(cursor: string, lines: readonly PageLine[]): void;
  setChanges(id: string, changes: PageLine): void;
  /** Sets the function that answers later POSTs of that path; it may delay the answer. */
  answer(path: 'respond' | 'send' | 'abort', answer: (body: PageLine) => Answer | Promise<Answer>): void;
  /** Refuses GETs of that name. */
  refuse(name: string, status: number, error: string): void;
  /** Open streams of the list (`fleet`) or of a session. */
  streams(name: string): number;
  /** Ends every connection, then listens on the same port again. */
  restart(): Promise<void>;
  /** Stops answering, connections included, until `restart`. */
  stop(): Promise<void>;
}

export async function startPageApi(): Promise<PageApi> {
  const posts: { path: string; body: PageLine }[] = [];
  const gets: string[] = [];
  const sessions = new Map<string, readonly PageLine[]>();
  const older = new Map<string, readonly PageLine[]>();
  const changes = new Map<string, PageLine>();
  const answers = new Map<string, (body: PageLine) => Answer | Promise<Answer>>();
  const refusals = new Map<string, { readonly status: number; readonly error: string }>();
  const open = new Map<string, Set<ServerResponse>>();
  let fleet: PageLine = { at: 0, you: {}, machines: [], instances: [], sessions: [], notes: [] };
  let listener: HttpListener = await listenHttp(handle);
  const { port, url } = listener;

  function handle(request: IncomingMessage, response: ServerResponse): void {
    void route(request, response).catch((error: unknown) => send(response, 500, { error: String(error) }));
  }

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '', url);
    if (!pathname.startsWith(`${PREFIX}v1/`)) return sendFile(pathname, response);
    if (request.headers['x-opencode-mcp-page'] !== '1') return send(response, 403, { error: 'no header of the page' });
    const name = pathname.slice(PREFIX.length + 3);
    if (request.method === 'POST') return recordPost(name, request, response);
    gets.push(`${name}?${searchParams.toString()}`);
    const refusal = refusals.get(name);
    if (refusal !== undefined) return send(response, refusal.status, { error: refusal.error });
    const id = searchParams.get('session') ?? '';
    if (name === 'fleet') return openStream('fleet', response, [fleet]);
    if (name === 'changes') return send(response, 200, changes.get(id) ?? { files: [], more: 0 });
    const before = searchParams.get('before');
    if (before !== null) return void writeLines(response, older.get(before) ?? []).end();
    const first = sessions.get(id);
    if (first === undefined) return send(response, 404, { error: `no session "${id}" there` });
    openStream(id, response, first);
  }

  async function recordPost(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isFromPage = request.headers.origin === url && request.headers['content-type'] === 'application/json';
    if (!isFromPage) return send(response, 403, { error: 'another origin' });
    const body = JSON.parse(await text(request)) as PageLine;
    posts.push({ path: name, body });
    const answer = (await answers.get(name)?.(body)) ?? {
      body: { done: true, text: 'done', session: body['session'] },
    };
    send(response, answer.status ?? 200, answer.body);
  }

  async function sendFile(pathname: string, response: ServerResponse): Promise<void> {
    const name = pathname === '/' ? 'index.html' : pathname.slice(PREFIX.length);
    const body = (await assets).get(name);
    if (body === undefined) return send(response, 404, { error: `no file ${pathname}` });
    response.writeHead(200, {
      'content-type': TYPES[name.split('.').at(-1) ?? ''],
      'content-security-policy': POLICY,
      'cache-control': 'no-store',
    });
    response.end(body);
  }

  function openStream(name: string, response: ServerResponse, first: readonly PageLine[]): void {
    const all = open.get(name) ?? new Set();
    open.set(name, all.add(response));
    response.once('close', () => all.delete(response));
    writeLines(response, first);
  }

  function writeLines(response: ServerResponse, all: readonly PageLine[]): ServerResponse {
    if (!response.headersSent) {
      response.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8', 'cache-control': 'no-store' });
      response.flushHeaders();
    }
    const body = all.map((line) => `${JSON.stringify(line)}\n`).join('');
    response.write(body);
    return response;
  }

  function send(response: ServerResponse, status: number, body: unknown): void {
    response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
    response.end(JSON.stringify(body));
  }

  return {
    url,
    posts,
    gets,
    setFleet(next) {
      fleet = next;
      for (const response of open.get('fleet') ?? []) writeLines(response, [next]);
    },
    setSession: (id, first) => void sessions.set(id, first),
    push(id, ...more) {
      for (const response of open.get(id) ?? []) writeLines(response, more);
    },
    setOlder: (cursor, page) => void older.set(cursor, page),
    setChanges: (id, what) => void changes.set(id, what),
    answer: (path, answer) => void answers.set(path, answer),
    refuse: (name, status, error) => void refusals.set(name, { status, error }),
    streams: (name) => open.get(name)?.size ?? 0,
    async restart() {
      await listener.close();
      listener = await listenHttp(handle, port);
    },
    stop: () => listener.close(),
    [Symbol.asyncDispose]: () => listener.close(),
  };
}

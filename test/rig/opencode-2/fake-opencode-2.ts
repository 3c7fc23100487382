import { rename, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { text as readText } from 'node:stream/consumers';

import { give, WEB_PAGE, type Answer } from '../answer.ts';
import { Gates } from '../gates.ts';
import { listenHttp, type HttpListener } from '../http-listener.ts';
import { basicAuth, jsonOf, requestJson } from '../json-request.ts';
import type { ModelRequest, ScriptedModel } from '../model/scripted-model.ts';
import { DEFAULT_WAIT_MS, until } from '../wait.ts';
import { checkAnswer, checkBody, checkQuery, CONTRACT, type ContractRoute } from './contract.ts';
import { Events } from './events.ts';
import { HANDLERS, invalid, noLocation, noSession, type Server } from './routes.ts';
import type { TurnStep } from './scripts.ts';
import { Store, Waiting, type Fields, type StoredSession } from './store.ts';
import { createSession, Turns, type NewSession } from './turns.ts';

/** The client asks for these to recognise older servers and the preview: no violation. */
const OF_OTHER_VERSIONS = new Set(['/api/health', '/api/status']);

export interface FakeRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** The name in `contract.json`, if it is known there. */
  readonly route: string | undefined;
  readonly query: Fields;
  /** Parsed; undefined if there was none. */
  readonly body: unknown;
  /** Named in the query or the header. */
  readonly directory: string | undefined;
  /** False: the password was wrong or missing. */
  readonly authorized: boolean;
}

/** Happens to a request instead of its answer. */
export interface Fault {
  /** Cuts the connection before anything is done, or after all is done and before the answer. */
  readonly drop?: 'before' | 'after';
  /** Answered without doing anything. Need not fit the contract. */
  readonly answer?: Answer;
}

export interface FakeOpencode2Options {
  readonly password?: string;
  readonly version?: string;
  /** For `/api/info`; default this process's own, which holds the port. */
  readonly pid?: number;
  /** The working directory of the service. */
  readonly home?: string;
  /** The existing directories with their files by path. Default: every directory exists, and is empty. */
  readonly directories?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export async function startFakeOpencode2(options: FakeOpencode2Options = {}): Promise<FakeOpencode2> {
  const fake = new FakeOpencode2(options);
  await fake.start();
  return fake;
}

interface FoundRoute {
  readonly name: string;
  readonly contract: ContractRoute;
  readonly params: Readonly<Record<string, string>>;
}

const ROUTES = Object.entries(CONTRACT.routes)
  .map(([name, contract]) => {
    const [method = '', path = ''] = name.split(' ');
    const form = path.replace(/\{(\w+)\}/g, '(?<$1>[^/]+)').replace('*', '(?<rest>.*)');
    return { name, contract, method, form: new RegExp(`^${form}$`) };
  })
  .sort((a, b) => Number(a.name.includes('{')) - Number(b.name.includes('{')));

/**
 * The service of OpenCode 2.1. Checks each request, answer and event by `contract.json`. Beyond the contract it follows what was
 * measured on the preview, or reported of 2.0 and 2.1. Prompts are in the language of `model-script.ts`.
 */
export class FakeOpencode2 implements AsyncDisposable {
  readonly password: string;
  readonly home: string;
  readonly pid: number;
  readonly version: string;
  /** All since the first start. */
  readonly requests: FakeRequest[] = [];
  /** Directories whose plugins would have run since the first start. */
  readonly loaded = new Set<string>();
  readonly #options: FakeOpencode2Options;
  readonly #store = new Store();
  readonly #gates = new Gates();
  readonly #scripts = new Map<string, readonly TurnStep[]>();
  readonly #modelRequests: ModelRequest[] = [];
  readonly #violations: string[] = [];
  #fault: ((request: FakeRequest) => Fault | undefined) | undefined;
  #listener: HttpListener | undefined;
  #server: Server;
  #url = '';
  #closing: Promise<void> | undefined;

  constructor(options: FakeOpencode2Options) {
    this.#options = options;
    this.password = options.password ?? 'fake password';
    this.home = options.home ?? '/home/user';
    this.pid = options.pid ?? process.pid;
    this.version = options.version ?? CONTRACT.version;
    this.#server = this.#newServer();
  }

  get url(): string {
    return this.#url;
  }

  get port(): number {
    return Number(new URL(this.#url).port);
  }

  get headers(): Readonly<Record<string, string>> {
    return basicAuth(this.password);
  }

  /** Open event streams. */
  get streams(): number {
    return this.#server.events.size;
  }

  /** The model of all sessions, as the scripted one. */
  readonly model: Pick<ScriptedModel, 'turns' | 'waitForTurn' | 'waitForGate' | 'release'> = {
    turns: (text) => this.#modelRequests.filter((request) => request.text === text).length,
    waitForTurn: (prompt) =>
      until(`a turn of ${JSON.stringify(prompt)}`, () => this.#modelRequests.find(({ text }) => text === prompt)),
    waitForGate: (gate, timeoutMs) => this.#gates.reached(gate, timeoutMs),
    release: (gate) => this.#gates.open(gate),
  };

  /** Starts a process: on the port of the one before, whose interrupted turns it resumes. */
  async start(): Promise<void> {
    const port = this.#url === '' ? 0 : this.port;
    this.#server = this.#newServer();
    this.#listener = await listenHttp((incoming, response) => {
      this.#handle(incoming, response).catch((error: unknown) => {
        this.#violations.push(`the fake failed: ${error instanceof Error ? error.stack : String(error)}`);
        response.destroy();
      });
    }, port);
    this.#url = this.#listener.url;
    this.#server.turns.resume();
  }

  #newServer(): Server {
    const waiting = new Waiting();
    const events = new Events(this.#store, (violation) => void this.#violations.push(violation));
    const turns = new Turns({
      store: this.#store,
      waiting,
      events,
      gates: this.#gates,
      scripts: this.#scripts,
      onModel: (text, session) => this.#onModel(text, session),
    });
    return {
      store: this.#store,
      waiting,
      events,
      turns,
      version: this.version,
      pid: this.pid,
      url: () => this.#url,
      home: this.home,
      filesOf: (directory) => this.#options.directories?.[directory] ?? {},
    };
  }

  #onModel(text: string, { info, messages }: StoredSession): () => void {
    const request = {
      kind: 'turn' as const,
      text,
      step: 0,
      sessionID: info.id,
      model: info.model?.id ?? 'scripted-model',
      atMs: Date.now(),
      userTexts: messages.flatMap((one) => (one.type === 'user' ? [String(one['text'])] : [])),
      aborted: false,
    };
    this.#modelRequests.push(request);
    return () => (request.aborted = true);
  }

  /** Makes a prompt with exactly this text do these steps. */
  script(text: string, steps: readonly TurnStep[]): void {
    this.#scripts.set(text, steps);
  }

  /** Called for each further authorized request; `undefined` ends it. */
  setFault(fault: ((request: FakeRequest) => Fault | undefined) | undefined): void {
    this.#fault = fault;
  }

  /** Makes a session without a request. */
  addSession(session: NewSession): StoredSession {
    return createSession(this.#server, session);
  }

  /** As stored. */
  session(id: string): StoredSession {
    const found = this.#store.sessions.get(id);
    if (!found) throw new Error(`Expected the id of a session, got ${id}`);
    return found;
  }

  /** A bounded request with the password, and a JSON body if one is given. */
  api(path: string, { method = 'GET', body }: { method?: string; body?: unknown } = {}): Promise<Response> {
    return requestJson(new URL(path, this.url), { headers: this.headers, method, body, timeoutMs: DEFAULT_WAIT_MS });
  }

  /** As `api`; rejects unless the answer is 2xx JSON. */
  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    return jsonOf(await this.api(path, { method, body }));
  }

  /** Writes `service.json`, or that of a channel, as the service does: 0600, by a rename. Returns its path. */
  async register(stateDir: string, channel?: string): Promise<string> {
    const path = join(stateDir, channel === undefined ? 'service.json' : `service-${channel}.json`);
    const { version, url, pid, password } = this;
    await writeFile(`${path}.new`, JSON.stringify({ id: this.#store.id('srv'), version, url, pid, password }), {
      mode: 0o600,
    });
    await rename(`${path}.new`, path);
    return path;
  }

  /** As SIGTERM: running turns are interrupted for `shutdown`. */
  async stop(): Promise<void> {
    const { turns } = this.#server;
    for (const id of turns.active) await turns.interrupt(this.session(id), 'shutdown');
    await this.kill9();
  }

  /** As SIGKILL: running turns stay open in the store. */
  async kill9(): Promise<void> {
    this.#server.events.close();
    await Promise.all([this.#server.turns.kill(), this.#listener?.close()]);
  }

  /** Kills it if it runs, and starts it. */
  async restart(): Promise<void> {
    await this.kill9();
    await this.start();
  }

  /** Ends it. Rejects if something violated the contract. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    await this.kill9();
    if (this.#violations.length > 0)
      throw new Error(`violations of the contract of OpenCode ${CONTRACT.version}:\n${this.#violations.join('\n')}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', headers } = incoming;
    const url = new URL(incoming.url ?? '/', this.#url);
    const text = await readText(incoming);
    const found = findRoute(method, url.pathname);
    const query = readQuery(url.searchParams, found?.contract);
    const named = headers['x-opencode-directory'];
    const { location } = query as { readonly location?: { readonly directory?: string } };
    const request: FakeRequest = {
      method,
      path: url.pathname,
      route: found?.name,
      query,
      body: parse(text),
      directory: location?.directory ?? (typeof named === 'string' ? named : undefined),
      authorized: headers.authorization === this.headers['authorization'],
    };
    this.requests.push(request);
    if (!url.pathname.startsWith('/api/')) return give(response, WEB_PAGE);
    if (!request.authorized) return give(response, UNAUTHORIZED);
    const fault = this.#fault?.(request);
    if (fault?.drop === 'before') return void response.destroy();
    if (fault?.answer) return give(response, fault.answer);
    if (!found) {
      if (!OF_OTHER_VERSIONS.has(url.pathname))
        this.#violations.push(`${method} ${url.pathname}: no route of the contract`);
      return give(response, { status: 404 });
    }
    const answer = await this.#answer(request, found, response);
    if (answer === 'stream') return;
    const wrong = checkAnswer(found.contract, answer.status, answer.body);
    if (wrong !== undefined) this.#violations.push(`the answer ${answer.status} to ${found.name}: ${wrong}`);
    if (fault?.drop === 'after') response.destroy();
    else give(response, answer);
  }

  async #answer(request: FakeRequest, found: FoundRoute, response: ServerResponse): Promise<Answer | 'stream'> {
    const { name, contract, params } = found;
    const { query, body } = request;
    const wrong = checkQuery(contract, query) ?? checkBody(contract, body);
    if (wrong !== undefined) {
      this.#violations.push(`${name}: ${wrong}`);
      return invalid(wrong);
    }
    const { sessionID = '' } = params;
    const session = this.#store.sessions.get(sessionID);
    if ('sessionID' in params) {
      if (!sessionID.startsWith('ses')) return invalid('Invalid session ID', { field: 'sessionID' });
      if (!session) return noSession(sessionID);
    }
    const directory =
      (contract.loads === 'session' && session?.info.location.directory) || (request.directory ?? this.home);
    if (contract.loads !== 'nothing' && !this.#load(directory)) return noLocation(directory);
    const handler = HANDLERS[name];
    if (!handler) throw new Error(`the fake has no ${name}`);
    const fields = typeof body === 'object' && body !== null ? { ...body } : {};
    const answer = await handler(this.#server, {
      params,
      query,
      body: fields,
      response,
      // Those that name none in their path look at none.
      session: session as StoredSession,
      directory,
    });
    // A session's directory shows as loaded once it is created.
    if (name === 'POST /api/session') {
      const { location } = fields as { readonly location?: { readonly directory: string } };
      this.#load(location?.directory ?? this.home);
    }
    return answer;
  }

  /** False: there is no such directory. */
  #load(directory: string): boolean {
    const { directories } = this.#options;
    if (directories && !(directory in directories) && directory !== this.home) return false;
    this.loaded.add(directory);
    return true;
  }
}

const UNAUTHORIZED: Answer = {
  status: 401,
  headers: { 'www-authenticate': 'Basic realm="Secure Area"' },
  body: { _tag: 'UnauthorizedError', message: 'Authentication required' },
};

function findRoute(method: string, path: string): FoundRoute | undefined {
  for (const { name, contract, method: wanted, form } of ROUTES) {
    const match = wanted === method ? form.exec(path) : undefined;
    if (!match) continue;
    const params = Object.entries(match.groups ?? {}).map(([key, value]) => [key, decodeURIComponent(value)]);
    return { name, contract, params: Object.fromEntries(params) };
  }
  return undefined;
}

/** Converts values to their types in the contract. What does not fit stays a string, which the check then finds. */
function readQuery(params: URLSearchParams, route: ContractRoute | undefined): Fields {
  const query: Record<string, unknown> = {};
  for (const [key, value] of params) {
    const [, outer, inner] = /^(\w+)\[(\w+)\]$/.exec(key) ?? [];
    if (outer !== undefined && inner !== undefined) {
      query[outer] = { ...(query[outer] as Fields | undefined), [inner]: value };
      continue;
    }
    const type = route?.query?.properties?.[key]?.type;
    if (type === 'integer' && /^-?\d+$/.test(value)) query[key] = Number(value);
    else if (type === 'boolean' && /^(true|false)$/.test(value)) query[key] = value === 'true';
    else query[key] = value;
  }
  return query;
}

function parse(text: string): unknown {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

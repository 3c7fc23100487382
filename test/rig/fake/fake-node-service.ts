import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { INSTANCE_PREFIX, LIST_PATH, STATES_PATH } from '../../../src/discovery/tailnet/peer-list.ts';
import type { ReportedOverview } from '../../../src/model/report.ts';
import type { WatchedSession } from '../../../src/model/watched.ts';
import { forward } from '../http-listener.ts';

/** An OpenCode 1 server behind a fake node service. */
export interface FakeNodeServer {
  readonly id: string;
  readonly directory: string;
  /** URL to which requests are forwarded. */
  readonly url?: string;
  /** The watcher's report for each directory, the server's own directory first; undefined: the event stream is down. */
  readonly overviews?: readonly ReportedOverview[];
}

/** A scripted node service: the list, the states, and a proxy below each instance. */
export class FakeNodeService {
  /** False makes this an older service without states. */
  hasStates = true;
  /** Received requests, each as `states`, `instances` or `GET <id>/path`. */
  readonly requests: string[] = [];
  /** Responses of held requests, with the requests' paths. */
  readonly held = new Map<ServerResponse, string>();
  #servers: readonly FakeNodeServer[];

  constructor(servers: readonly FakeNodeServer[] = []) {
    this.#servers = servers;
  }

  /** Requests for an instance rather than for a list. */
  get passedOn(): readonly string[] {
    return this.requests.filter((one) => one !== 'states' && one !== 'instances');
  }

  /** Changes the servers, and answers held requests with the new list. */
  say(servers: readonly FakeNodeServer[]): void {
    this.#servers = servers;
    for (const [response, path] of this.held) this.#respond(response, path);
    this.held.clear();
  }

  /** Closes the connection of every held request. */
  cut(): void {
    for (const response of this.held.keys()) response.destroy();
    this.held.clear();
  }

  /** Answers every held request with 304. */
  confirm(): void {
    for (const response of this.held.keys()) response.writeHead(304).end();
    this.held.clear();
  }

  readonly serve = (request: IncomingMessage, response: ServerResponse): void => {
    const { url = '', method, headers } = request;
    const isStates = url === STATES_PATH;
    if (!isStates && url !== LIST_PATH) {
      this.#forward(request, response);
      return;
    }
    this.requests.push(isStates ? 'states' : 'instances');
    if (isStates && !this.hasStates) response.writeHead(404).end('Not a path of this service.');
    else if (method !== 'GET') response.writeHead(405).end();
    else if (headers['if-none-match'] !== this.#answer(url).etag) this.#respond(response, url);
    else if (headers['prefer'] === undefined) response.writeHead(304).end();
    else {
      this.held.set(response, url);
      response.once('close', () => this.held.delete(response));
    }
  };

  #respond(response: ServerResponse, path: string): void {
    const { body, etag } = this.#answer(path);
    response.writeHead(200, { 'content-type': 'application/json', etag }).end(body);
  }

  #answer(path: string): { readonly body: string; readonly etag: string } {
    const instances = this.#servers.map(({ id, directory }) => ({
      id,
      name: id,
      directory,
      version: '1.18.33',
      port: 4096,
    }));
    const states = this.#servers.flatMap(({ id, directory, overviews }) =>
      overviews === undefined
        ? []
        : [{ id, version: '1.18.33', dialect: 'opencode-1', directory, worktree: directory, overviews }],
    );
    const body = JSON.stringify({
      protocol: 1,
      node: { id: 'nNODE', name: 'node', host: 'node' },
      instances,
      services: [],
      ...(path === STATES_PATH && { states }),
    });
    return { body, etag: `"${createHash('sha256').update(body).digest('base64url')}"` };
  }

  #forward(request: IncomingMessage, response: ServerResponse): void {
    const { url = '', method = '' } = request;
    const [id = '', ...rest] = url.slice(INSTANCE_PREFIX.length).split('/');
    this.requests.push(`${method} ${id}/${rest.join('/')}`);
    const server = this.#servers.find((one) => one.id === id);
    if (server?.url === undefined) {
      response.writeHead(404).end();
      return;
    }
    forward(request, response, `${server.url}/${rest.join('/')}`);
  }
}

/** Returns the overview of an idle directory. */
export function idleIn(directory: string, session?: Partial<WatchedSession>): ReportedOverview {
  const { id = 'ses_idle', title = 'A session' } = session ?? {};
  return {
    directory,
    activity: { kind: 'idle' },
    running: [],
    session: { id, title, directory, updatedMs: 1_700_000_000_000, rest: { state: 'idle' } },
    waiting: [],
    sessions: [],
  };
}

/** Returns the overview of a directory with a running session, or with a session that waits for permission to run `command`. */
export function busyIn(directory: string, fields: Partial<WatchedSession> = {}, command?: string): ReportedOverview {
  const id = fields.id ?? 'ses_busy';
  const waiting =
    command === undefined
      ? []
      : [{ kind: 'permission' as const, id: 'per_1', sessionId: id, text: `bash ${JSON.stringify(command)}` }];
  const session: WatchedSession = {
    id,
    title: 'Fix the build',
    directory,
    state: command === undefined ? 'busy' : 'waiting',
    sinceMs: Date.now(),
    waiting,
    ...fields,
  };
  return {
    directory,
    witness: id,
    activity: { kind: 'busy' },
    running: [id],
    session: { id, title: session.title, directory, updatedMs: session.sinceMs },
    waiting,
    sessions: [session],
  };
}

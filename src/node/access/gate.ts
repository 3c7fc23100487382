import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import type { Credential } from '../../http/exchange.ts';
import type { Role, Verdict } from './admission.ts';
import type { Callers } from './callers.ts';
import type { Connections } from '../proxy/connections.ts';
import { answerList } from '../list/list-answer.ts';
import type { ListFeed } from '../list/list-feed.ts';
import type { OwnInstance, OwnInstances } from '../list/own-instances.ts';
import type { Upstream } from '../proxy/proxy-headers.ts';
import { proxyRequest, proxyUpgrade, refuse } from '../proxy/proxy.ts';
import { refuseRaw } from '../proxy/raw-answer.ts';
import { EventFilter } from '../proxy/event-filter.ts';
import { type AllowedRead, readRoute } from '../proxy/read-routes.ts';
import type { ReadSessions } from '../proxy/read-sessions.ts';
import { GIVES_SECRETS, givesSecrets, readServiceRoute, withoutToken } from '../proxy/service-routes.ts';
import type { Quota } from '../../http/quota.ts';
import { AWAY, guardRequest, type Refusal } from './request-guard.ts';
import type { RequestLog } from '../proxy/request-log.ts';
import { readTarget, type RequestTarget } from '../proxy/request-target.ts';
import type { NodePage, PageVisitor } from '../node-page.ts';
import { answerJson } from '../../page/json-answer.ts';
import type { Tailnet } from '../tailnet-view.ts';

export interface GateDeps {
  readonly tailnet: () => Tailnet | undefined;
  readonly callers: Pick<Callers, 'admit'>;
  readonly instances: Pick<OwnInstances, 'find' | 'credential'>;
  readonly feed: Pick<ListFeed, 'now' | 'next'>;
  /** What each instance is doing, as each role may see it. */
  readonly states: Readonly<Record<Role, Pick<ListFeed, 'now' | 'next'>>>;
  readonly page: Pick<NodePage, 'answer'>;
  readonly sessions: Pick<ReadSessions, 'has' | 'isActive'>;
  readonly connections: Connections;
  readonly quota: Quota;
  readonly clock: Clock;
  readonly log: RequestLog;
}

const UNKNOWN: Refusal = {
  status: 404,
  text: 'Not a path of this service. The list of instances is at /opencode-mcp/v1/instances.',
};
const TOO_MANY: Refusal = {
  status: 429,
  text: 'Your machine has too many requests in flight here. End some of them first.',
};

const CHANGED: Refusal = { status: 403, text: 'Your role here has changed. Send the request again.' };

/** Headers that name a directory: with them, a plain GET runs code there. */
const NAMING_DIRECTORIES = ['x-opencode-directory', 'x-opencode-workspace'];
const WITHOUT_DIRECTORIES: Pick<Upstream, 'without'> = { without: NAMING_DIRECTORIES };
/** Only an uncompressed stream can be filtered. */
const FILTERED: Pick<Upstream, 'without' | 'filter'> = {
  without: [...NAMING_DIRECTORIES, 'accept-encoding'],
  filter: () => new EventFilter(),
};
const NO_SESSION: Refusal = {
  status: 404,
  text: 'The instance has no such session in its own directory.',
  forInstance: true,
};
const NOT_ACTIVE: Refusal = {
  status: 403,
  text: 'That session is not running. The request would load its directory, which runs code there and needs the role "drive".',
};

/** How soon an exchange in flight is cut after its caller's right ends. */
export const RECHECK_MS = 60_000;

interface Admitted {
  readonly target: RequestTarget;
  readonly visitor: PageVisitor;
}

/** Guards every request, admits its caller, checks its route, then proxies it. */
export class Gate {
  readonly #deps: GateDeps;

  constructor(deps: GateDeps) {
    this.#deps = deps;
  }

  /** Never rejects. */
  async request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const over = this.#begin(request.socket, response);
    try {
      const admitted = await this.#admit(request, over.signal);
      if ('status' in admitted) refuseAsAsked(request, response, admitted);
      else await this.#answer(request, response, admitted, over);
    } catch (error) {
      this.#deps.log.failed(request, error);
      refuse(response, { status: 500, text: 'The node service failed; its log says why.' });
    }
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    { target, visitor }: Admitted,
    over: AbortController,
  ): Promise<void> {
    const { signal } = over;
    if (target.kind === 'page') {
      void this.#recheck(request, visitor, over);
      await this.#deps.page.answer(request, response, { target, visitor, signal });
    } else if (target.kind === 'instance') {
      const upstream = await this.#upstream(request, target, visitor.role, signal);
      if ('status' in upstream) {
        refuse(response, upstream);
        return;
      }
      void this.#recheck(request, visitor, over);
      await proxyRequest(request, response, { ...upstream, isSandboxed: true }, signal);
    } else {
      const { feed, states } = this.#deps;
      await answerList(request, response, {
        feed: target.kind === 'states' ? states[visitor.role] : feed,
        signal,
        admitAgain: () => this.#admitAgain(request, target, visitor.role),
      });
    }
  }

  /** Never rejects. */
  async upgrade(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const over = this.#begin(socket, socket);
    try {
      const admitted = await this.#admit(request, over.signal);
      if ('status' in admitted) {
        refuseRaw(socket, admitted);
        return;
      }
      const { target, visitor } = admitted;
      const upstream =
        upgradeProblem(request, visitor.role) ?? (await this.#upstream(request, target, visitor.role, over.signal));
      if ('status' in upstream) {
        refuseRaw(socket, upstream);
        return;
      }
      void this.#recheck(request, visitor, over);
      await proxyUpgrade(request, socket, head, upstream, over.signal);
    } catch (error) {
      this.#deps.log.failed(request, error);
      socket.destroy();
    }
  }

  /** Aborts when the exchange is over, which is when `closing` closes. */
  #begin(socket: Socket, closing: EventEmitter): AbortController {
    const over = new AbortController();
    const idle = this.#deps.connections.busy(socket);
    closing.once('close', () => {
      idle();
      over.abort();
    });
    return over;
  }

  async #admit(request: IncomingMessage, signal: AbortSignal): Promise<Admitted | Refusal> {
    const { tailnet, log, callers, quota } = this.#deps;
    const self = tailnet()?.self;
    if (self === undefined) return AWAY;
    const target = readTarget(request.url ?? '');
    const wrong = guardRequest(request, self, target);
    if (wrong !== undefined) {
      log.refused(request, { caller: request.socket.remoteAddress ?? 'unknown' }, wrong.text);
      return wrong;
    }
    const verdict = await callers.admit(request.socket);
    if (!('role' in verdict)) return this.#refused(request, target, verdict);
    const leave = quota.take(verdict.node);
    if (leave === undefined) {
      log.polled(request, verdict, TOO_MANY.text);
      return TOO_MANY;
    }
    signal.addEventListener('abort', leave, { once: true });
    if (signal.aborted) leave();
    if (target === undefined) {
      log.refused(request, verdict, UNKNOWN.text);
      return UNKNOWN;
    }
    if (target.kind !== 'instance') log.polled(request, verdict);
    else log.admitted(request, verdict);
    const { role, caller, isNodeUser = false } = verdict;
    return { target, visitor: { role, caller, isNodeUser } };
  }

  #refused(
    request: IncomingMessage,
    target: RequestTarget | undefined,
    verdict: Exclude<Verdict, { role: Role }>,
  ): Refusal {
    const { log } = this.#deps;
    const reason = 'refusal' in verdict ? verdict.refusal : verdict.unanswered;
    if (target !== undefined && target.kind !== 'instance') log.polled(request, verdict, reason);
    else log.refused(request, verdict, reason);
    if ('refusal' in verdict) return { status: 403, text: reason };
    // The cause first: callers may truncate the text.
    return { status: 503, text: `${reason}; access denied: tailscaled could not identify the caller.` };
  }

  /** Undefined if the caller of a held request may still have the answer. */
  async #admitAgain(request: IncomingMessage, target: RequestTarget, role: Role): Promise<Refusal | undefined> {
    const verdict = await this.#deps.callers.admit(request.socket, 'again');
    if (!('role' in verdict)) return this.#refused(request, target, verdict);
    return target.kind === 'list' || mayStill(verdict.role, role) ? undefined : CHANGED;
  }

  /** Where to send an admitted request, or why it is refused. */
  async #upstream(
    request: IncomingMessage,
    target: RequestTarget,
    role: Role,
    signal: AbortSignal,
  ): Promise<Upstream | Refusal> {
    if (target.kind !== 'instance') return UNKNOWN;
    const instance = await this.#deps.instances.find(target.id);
    if (instance === undefined) {
      return { status: 404, text: 'There is no such instance here now; the list is at /opencode-mcp/v1/instances.' };
    }
    const credential = await this.#deps.instances.credential(instance, signal).catch((error: unknown) => {
      this.#deps.log.failed(request, error);
      return undefined;
    });
    const { dialect, directory } = instance;
    const isService = dialect !== 'opencode-1';
    const { path, query } = target;
    if (isService && givesSecrets(path)) return { status: 403, text: GIVES_SECRETS };
    const connection = connectionTo(instance, credential);
    if (role === 'drive') return { connection, path: path + withoutToken(query) };
    const asked = { method: request.method ?? '', path, query };
    const route = isService ? readServiceRoute(asked, dialect) : readRoute(asked, directory);
    if ('refusal' in route) return { status: 403, text: route.refusal };
    const problem = await this.#sessionProblem(route, instance, credential, signal);
    return problem ?? { connection, path: route.path, ...(route.isWholeStream ? FILTERED : WITHOUT_DIRECTORIES) };
  }

  /** Why a `read` caller may not use the session of this route. */
  async #sessionProblem(
    { session, active }: AllowedRead,
    instance: OwnInstance,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<Refusal | undefined> {
    const { sessions } = this.#deps;
    if (session !== undefined && !(await sessions.has(session, instance, credential, signal))) return NO_SESSION;
    if (active !== undefined && !(await sessions.isActive(active, instance, credential, signal))) return NOT_ACTIVE;
    return undefined;
  }

  /** Checks every minute that the caller of a long exchange still has the right it began with, and cuts it otherwise. */
  async #recheck(request: IncomingMessage, { role, isNodeUser }: PageVisitor, over: AbortController): Promise<void> {
    const { clock, callers, log } = this.#deps;
    for (;;) {
      await clock.sleep(RECHECK_MS, over.signal);
      if (over.signal.aborted) return;
      const verdict = await callers.admit(request.socket);
      if (over.signal.aborted) return;
      if ('role' in verdict && mayStill(verdict.role, role) && (!isNodeUser || verdict.isNodeUser === true)) continue;
      log.cut(request, verdict);
      over.abort();
    }
  }
}

/** `drive` includes `read`. */
function mayStill(now: Role, before: Role): boolean {
  return now === before || now === 'drive';
}

/** Answers in JSON if the page's scripts asked. */
function refuseAsAsked(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  const target = readTarget(request.url ?? '');
  if (target?.kind !== 'page' || 'file' in target) refuse(response, refusal);
  else answerJson(response, refusal.status, { error: refusal.text });
}

function upgradeProblem({ headers, method }: IncomingMessage, role: Role): Refusal | undefined {
  if (role !== 'drive') return { status: 403, text: 'Your role here is "read", which has no WebSockets.' };
  if (method !== 'GET' || headers.upgrade?.toLowerCase() !== 'websocket')
    return { status: 400, text: 'Only WebSocket upgrades are served.' };
  return undefined;
}

function connectionTo({ port, pid }: OwnInstance, credential: Credential | undefined): Upstream['connection'] {
  const endpoint = { url: `http://127.0.0.1:${port}`, route: 'loopback' } as const;
  return {
    endpoint: { ...endpoint, ...(pid !== undefined && { holderPid: pid }) },
    ...(credential !== undefined && { credential }),
  };
}

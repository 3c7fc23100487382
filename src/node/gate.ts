import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import type { Logger } from '../log.ts';
import { singleLine } from '../plain-text.ts';
import type { Admission, Role } from './admission.ts';
import type { Callers, Unanswered } from './callers.ts';
import type { Connections } from './connections.ts';
import { listingOf } from './listing.ts';
import type { OwnInstance, OwnInstances } from './own-instances.ts';
import type { Upstream } from './proxy-headers.ts';
import { proxyRequest, proxyUpgrade, refuse } from './proxy.ts';
import { refuseRaw } from './raw-answer.ts';
import { readRoute } from './read-routes.ts';
import type { ReadSessions } from './read-sessions.ts';
import { recheck } from './recheck.ts';
import { guardRequest, type Refusal } from './request-guard.ts';
import { readTarget, type Target } from './request-target.ts';
import type { Tailnet } from './tailnet-view.ts';

export interface GateDeps {
  readonly tailnet: () => Tailnet | undefined;
  readonly callers: Pick<Callers, 'admit'>;
  readonly instances: Pick<OwnInstances, 'list' | 'find' | 'credential'>;
  readonly sessions: Pick<ReadSessions, 'has'>;
  readonly connections: Connections;
  /** This machine's own name. */
  readonly host: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

const MAX_PATH_CHARS = 200;

const UNKNOWN: Refusal = {
  status: 404,
  text: 'Not a path of this service. The list of instances is at /opencode-mcp/v1/instances.',
};
const AWAY: Refusal = { status: 503, text: 'This machine is not in a tailnet at the moment.' };

interface Admitted {
  readonly target: Target;
  readonly tailnet: Tailnet;
  readonly role: Role;
}

/** Every request passes here: guarded, its caller admitted, its route allowed, then proxied. */
export class Gate {
  readonly #deps: GateDeps;

  constructor(deps: GateDeps) {
    this.#deps = deps;
  }

  /** Never rejects. */
  async request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    const over = new AbortController();
    const idle = this.#deps.connections.busy(socket);
    response.once('close', () => {
      idle();
      over.abort();
    });
    try {
      const admitted = await this.#admit(request);
      if ('status' in admitted) refuse(response, admitted);
      else if (admitted.target.kind === 'list') await this.#list(request, response, admitted);
      else {
        const upstream = await this.#upstream(request, admitted, over.signal);
        if ('status' in upstream) refuse(response, upstream);
        else await this.#watched(request, admitted, over, () => proxyRequest(request, response, upstream, over.signal));
      }
    } catch (error) {
      this.#fault(request, error);
      refuse(response, { status: 500, text: 'The node service failed; its log says why.' });
    }
  }

  /** Never rejects. */
  async upgrade(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const over = new AbortController();
    const idle = this.#deps.connections.busy(socket);
    socket.once('close', () => {
      idle();
      over.abort();
    });
    try {
      const admitted = await this.#admit(request);
      const upstream =
        'status' in admitted
          ? admitted
          : (upgradeProblem(request, admitted) ?? (await this.#upstream(request, admitted, over.signal)));
      if ('status' in admitted || 'status' in upstream) refuseRaw(socket, 'status' in upstream ? upstream : UNKNOWN);
      else
        await this.#watched(request, admitted, over, () => proxyUpgrade(request, socket, head, upstream, over.signal));
    } catch (error) {
      this.#fault(request, error);
      socket.destroy();
    }
  }

  async #admit(request: IncomingMessage): Promise<Admitted | Refusal> {
    const tailnet = this.#deps.tailnet();
    if (tailnet === undefined) return AWAY;
    const wrong = guardRequest(request, tailnet.self);
    if (wrong !== undefined) {
      this.#log(request, 'refused', { caller: request.socket.remoteAddress ?? 'unknown' }, wrong.text);
      return wrong;
    }
    const verdict = await this.#deps.callers.admit(request.socket);
    if (!('role' in verdict)) return this.#refused(request, verdict);
    const target = readTarget(request.url ?? '');
    if (target === undefined) {
      this.#log(request, 'refused', verdict, UNKNOWN.text);
      return UNKNOWN;
    }
    this.#log(request, 'admitted', verdict);
    return { target, tailnet, role: verdict.role };
  }

  #refused(request: IncomingMessage, verdict: Exclude<Admission, { role: Role }> | Unanswered): Refusal {
    const reason = 'refusal' in verdict ? verdict.refusal : verdict.unanswered;
    this.#log(request, 'refused', verdict, reason);
    if ('refusal' in verdict) return { status: 403, text: reason };
    return { status: 503, text: `Who you are could not be told, so you are not admitted: ${reason}.` };
  }

  async #list(request: IncomingMessage, response: ServerResponse, { tailnet }: Admitted): Promise<void> {
    if (request.method !== 'GET') {
      refuse(response, { status: 405, text: 'The list is read with GET.' });
      return;
    }
    const { self } = tailnet;
    const node = { id: self.id, name: self.dnsName === '' ? self.hostName : self.dnsName, host: this.#deps.host };
    const body = JSON.stringify(listingOf(node, await this.#deps.instances.list()));
    response.writeHead(200, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    });
    response.end(body);
  }

  /** Where an admitted request goes, or why it does not. */
  async #upstream(
    request: IncomingMessage,
    { target, role }: Admitted,
    signal: AbortSignal,
  ): Promise<Upstream | Refusal> {
    if (target.kind !== 'instance') return UNKNOWN;
    const instance = await this.#deps.instances.find(target.id);
    if (instance === undefined) {
      return { status: 404, text: 'There is no such instance here now; the list is at /opencode-mcp/v1/instances.' };
    }
    const credential = await this.#deps.instances.credential(instance, signal).catch((error: unknown) => {
      this.#fault(request, error);
      return undefined;
    });
    const { port } = instance;
    if (role === 'drive') return { port, path: target.path + target.query, credential };
    return this.#readUpstream(request, target, instance, credential, signal);
  }

  async #readUpstream(
    { method = '' }: IncomingMessage,
    { path, query }: Extract<Target, { kind: 'instance' }>,
    instance: OwnInstance,
    credential: Upstream['credential'],
    signal: AbortSignal,
  ): Promise<Upstream | Refusal> {
    const { directory, port } = instance;
    const decision = readRoute({ method, path, query }, directory);
    if ('refusal' in decision) return { status: 403, text: decision.refusal };
    const { session } = decision;
    if (session !== undefined && !(await this.#deps.sessions.has(session, instance, credential, signal)))
      return { status: 404, text: 'The instance has no such session in its own directory.' };
    return { port, path: decision.path, credential, without: ['x-opencode-directory', 'x-opencode-workspace'] };
  }

  /** Runs an exchange that is cut when its caller's right ends. */
  async #watched(
    request: IncomingMessage,
    { role }: Admitted,
    over: AbortController,
    exchange: () => Promise<void>,
  ): Promise<void> {
    const { clock, callers } = this.#deps;
    void recheck({
      clock,
      role,
      signal: over.signal,
      ask: () => callers.admit(request.socket),
      cut: (verdict) => {
        this.#log(request, 'cut', verdict, 'the right that it began with has ended');
        over.abort();
      },
    });
    await exchange();
  }

  /** Never the query, which may hold a directory or a title. */
  #log(
    { method, url = '' }: IncomingMessage,
    what: 'admitted' | 'refused' | 'cut',
    verdict: { readonly caller: string; readonly role?: Role },
    reason?: string,
  ): void {
    this.#deps.logger.log(what === 'admitted' ? 'info' : 'warn', what, {
      caller: verdict.caller,
      role: verdict.role,
      method,
      path: singleLine(url.split('?', 1)[0] ?? '', MAX_PATH_CHARS),
      reason,
    });
  }

  #fault({ method, url = '' }: IncomingMessage, error: unknown): void {
    const reason = singleLine(error instanceof Error ? error.message : String(error), 300);
    const path = singleLine(url.split('?', 1)[0] ?? '', MAX_PATH_CHARS);
    this.#deps.logger.log('warn', 'a request failed', { method, path, reason });
  }
}

function upgradeProblem({ headers, method }: IncomingMessage, { role }: Admitted): Refusal | undefined {
  if (role !== 'drive') return { status: 403, text: 'Your role here is "read", which has no WebSockets.' };
  if (method !== 'GET' || headers.upgrade?.toLowerCase() !== 'websocket')
    return { status: 400, text: 'Only WebSocket upgrades are served.' };
  return undefined;
}

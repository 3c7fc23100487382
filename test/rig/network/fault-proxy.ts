import {
  request as httpRequest,
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

import { Arrivals } from '../arrivals.ts';
import { Gates } from '../gates.ts';
import { listenHttp, type HttpListener } from '../http-listener.ts';

/** What happens to one request. Byte counts are of the body, after HTTP's own framing. */
export type Fault =
  | { readonly kind: 'pass' }
  /** Reset the connection as soon as the request's head has arrived. For a port that refuses to connect, see `down`. */
  | { readonly kind: 'reset' }
  /** Take the whole request and never answer; upstream sees nothing. */
  | { readonly kind: 'hang' }
  /** Wait for `release(gate)`, then pass. */
  | { readonly kind: 'hold'; readonly gate: string }
  | { readonly kind: 'delay'; readonly ms: number }
  /** Answer instead of upstream. */
  | {
      readonly kind: 'respond';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
    }
  /** Forward everything, wait for upstream's whole answer and reset: upstream did the work and the client cannot know. */
  | { readonly kind: 'lose-response' }
  /** Break both connections after half of the request's body. */
  | { readonly kind: 'cut-request' }
  /** Break the client's connection after `afterBytes` of the answer's body. */
  | { readonly kind: 'cut-response'; readonly afterBytes: number };

/** Selects requests. A string must equal the whole path without its query. */
export interface Match {
  readonly method?: string;
  readonly path?: string | RegExp | ((path: string) => boolean);
}

/** The record of a request, which grows while the request is served. */
export class ProxiedRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** Path and query as the client sent them. */
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
  /** The request's body so far. */
  body = '';
  /** Upstream's status, once it has answered. */
  status: number | undefined;

  constructor({ method = '', url = '/', headers }: IncomingMessage) {
    this.method = method;
    this.path = url.split('?', 1)[0] ?? '/';
    this.target = url;
    this.headers = headers;
  }

  fits({ method = this.method, path = this.path }: Match): boolean {
    if (method !== this.method) return false;
    if (typeof path === 'string') return path === this.path;
    return path instanceof RegExp ? path.test(this.path) : path(this.path);
  }
}

interface Exchange {
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
  readonly fault: Fault;
  readonly request: ProxiedRequest;
  /** Aborts when the client's connection ends. */
  readonly gone: AbortSignal;
}

export interface FaultProxy extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly requests: readonly ProxiedRequest[];
  count(match: Match): number;
  /** Resolves with the `nth` (default: first) past or future request that matches, once its head has arrived. */
  waitForRequest(match: Match, options?: { readonly nth?: number }): Promise<ProxiedRequest>;
  /** Applies `fault` to further requests that match: to all, or to the next `times`. The newest rule wins. Returns a function that removes the rule. */
  rule(match: Match, fault: Fault, times?: number): () => void;
  /** Removes all rules. */
  pass(): void;
  /** Lets all present and future requests at this gate through. */
  release(gate: string): void;
  /** Breaks every event stream that is open now; returns their number. The rules apply to new ones. */
  cutStreams(): number;
  /** Silences every event stream that is open now, with its connection left open; returns their number. */
  stallStreams(): number;
  /** Event streams open now. */
  readonly openStreams: number;
  /** Stops listening and breaks all connections: connecting is refused until `up`. */
  down(): Promise<void>;
  up(): Promise<void>;
  /** Sends new requests to another server, as if another process had taken the port. */
  retarget(upstream: string): void;
  close(): Promise<void>;
}

/** Headers of one connection, not of the message (RFC 9110, 7.6.1). */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'te',
  'trailer',
  'upgrade',
]);

function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name)));
}

/** An HTTP proxy on 127.0.0.1 in front of `upstream` that passes everything, streams included, unless a rule matches. */
export async function startFaultProxy(upstream: string): Promise<FaultProxy> {
  const rules: Array<{ readonly match: Match; readonly fault: Fault; left: number }> = [];
  const arrivals = new Arrivals<ProxiedRequest>();
  const streams = new Map<ServerResponse, { stalled: boolean }>();
  const gates = new Gates();
  let target = upstream;
  let listener: HttpListener | undefined = await listenHttp(accept);
  const { port, url } = listener;

  function accept(incoming: IncomingMessage, response: ServerResponse): void {
    const request = new ProxiedRequest(incoming);
    const fault = choose(request);
    arrivals.add(request);
    const client = new AbortController();
    response.once('close', () => client.abort());
    serve({ incoming, response, fault, request, gone: client.signal }).catch(() => response.destroy());
  }

  function choose(request: ProxiedRequest): Fault {
    const rule = rules.findLast(({ match, left }) => left > 0 && request.fits(match));
    if (!rule) return { kind: 'pass' };
    rule.left -= 1;
    return rule.fault;
  }

  async function serve(exchange: Exchange): Promise<void> {
    const { incoming, response, fault, gone } = exchange;
    if (fault.kind === 'reset') return void incoming.socket.resetAndDestroy();
    if (fault.kind === 'hang') return void incoming.resume();
    if (fault.kind === 'respond') {
      incoming.resume();
      response.writeHead(fault.status, fault.headers ?? {}).end(fault.body ?? '');
      return;
    }
    if (fault.kind === 'hold') await gates.pass(fault.gate, gone);
    if (fault.kind === 'delay') await delay(fault.ms, undefined, { signal: gone });
    if (!gone.aborted) forward(exchange);
  }

  function forward(exchange: Exchange): void {
    const { incoming, request, gone } = exchange;
    const { protocol, hostname, port: upstreamPort, pathname } = new URL(target);
    const outgoing = httpRequest({
      protocol,
      hostname,
      port: upstreamPort,
      method: request.method,
      path: pathname.replace(/\/$/, '') + request.target,
      headers: endToEnd(incoming.headers),
      // One connection per request: cutting one must not affect another.
      agent: false,
    });
    outgoing.on('error', () => incoming.socket.resetAndDestroy());
    outgoing.once('response', (answer) => {
      request.status = answer.statusCode;
      relayAnswer(answer, exchange);
    });
    gone.addEventListener('abort', () => outgoing.destroy(), { once: true });
    relayBody(outgoing, exchange);
  }

  function relayBody(outgoing: ClientRequest, { incoming, fault, request }: Exchange): void {
    const length = Number(incoming.headers['content-length'] ?? 0);
    let left = fault.kind === 'cut-request' ? Math.floor(length / 2) : Infinity;
    incoming.on('data', (chunk: Buffer) => {
      const piece = chunk.subarray(0, left);
      left -= piece.length;
      request.body += piece.toString();
      if (left > 0 || fault.kind !== 'cut-request') {
        outgoing.write(piece);
        return;
      }
      // Break the connection only once upstream has these bytes.
      outgoing.write(piece, () => {
        outgoing.destroy();
        incoming.socket.resetAndDestroy();
      });
    });
    incoming.once('end', () => outgoing.end());
  }

  function relayAnswer(answer: IncomingMessage, { incoming, response, fault }: Exchange): void {
    if (fault.kind === 'lose-response') {
      answer.resume();
      answer.once('end', () => incoming.socket.resetAndDestroy());
      return;
    }
    const flow = { stalled: false };
    if (answer.headers['content-type']?.startsWith('text/event-stream') === true) {
      streams.set(response, flow);
      response.once('close', () => streams.delete(response));
    }
    response.writeHead(answer.statusCode ?? 502, endToEnd(answer.headers));
    // The head of an event stream matters by itself; Node would hold it back until the first byte of the body.
    response.flushHeaders();
    let left = fault.kind === 'cut-response' ? fault.afterBytes : Infinity;
    answer.on('data', (chunk: Buffer) => {
      if (flow.stalled) return;
      const piece = chunk.subarray(0, left);
      left -= piece.length;
      response.write(piece, () => {
        if (left === 0) response.destroy();
      });
    });
    answer.once('end', () => {
      if (!flow.stalled && left > 0) response.end();
    });
    // Upstream died during its answer: the client must see a broken answer, not a short one.
    answer.once('error', () => response.destroy());
  }

  async function down(): Promise<void> {
    const ending = listener;
    listener = undefined;
    await ending?.close();
  }

  return {
    url,
    port,
    requests: arrivals.items,
    count: (match) => arrivals.items.filter((request) => request.fits(match)).length,
    waitForRequest(match, { nth = 1 } = {}) {
      let left = nth;
      const seen = (): string => JSON.stringify(arrivals.items.map(({ method, path }) => `${method} ${path}`));
      return arrivals.first(
        () => `request ${nth} of ${match.method ?? 'any'} ${String(match.path)}; seen ${seen()}`,
        (request) => request.fits(match) && (left -= 1) === 0,
      );
    },
    rule(match, fault, times = Infinity) {
      const rule = { match, fault, left: times };
      rules.push(rule);
      return () => {
        rule.left = 0;
      };
    },
    pass: () => void rules.splice(0),
    release: (gate) => gates.open(gate),
    cutStreams() {
      const open = [...streams.keys()];
      // Clear now, since a new stream may open before these emit `close`.
      streams.clear();
      for (const response of open) response.destroy();
      return open.length;
    },
    stallStreams() {
      for (const flow of streams.values()) flow.stalled = true;
      return streams.size;
    },
    get openStreams() {
      return streams.size;
    },
    down,
    async up() {
      listener ??= await listenHttp(accept, port);
    },
    retarget(other) {
      target = other;
    },
    close: down,
    [Symbol.asyncDispose]: down,
  };
}

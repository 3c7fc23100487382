import {
  Agent,
  type ClientRequest,
  type IncomingMessage,
  request as requestHttp,
  type RequestOptions,
} from 'node:http';
import { Agent as SecureAgent, request as requestHttps } from 'node:https';

import { type Receiver, type Withheld, whenConnected } from './port-holder.ts';
import { type Dial, dialConnector } from '../base/dial.ts';
import { JsonCutter } from './json-cutter.ts';
import { closeIdle, DialAgent, KEEPING, keeping } from './agents.ts';
import { networkError, OUT_OF_FILES, RequestError } from './request-error.ts';

/** One HTTP request. */
export interface Outgoing {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  /** Uses connections of earlier requests, and keeps its own for later ones. */
  readonly pooled: boolean;
  /** Names the request in errors. */
  readonly label: string;
  /** Makes the connection, instead of a TCP connect. */
  readonly dial?: Dial | undefined;
  /** A local socket instead of the host of `url`, and the agent for its connections. */
  readonly via?: Pick<RequestOptions, 'socketPath' | 'agent'> | undefined;
  /** Restricts who may receive the request: on this machine, only a port held by the right user and process. */
  readonly secretFor?: Receiver | undefined;
  /** Called once connected, before anything is sent; an exception fails the call. */
  readonly beforeSend?: (() => void) | undefined;
}

/**
 * node:http instead of fetch: undici keeps about 20 KB for each address it ever tried, and takes twice the memory and time for
 * 200 servers (Node 20.20).
 */
const POOLS = {
  http: keeping(new Agent(KEEPING)),
  https: keeping(new SecureAgent(KEEPING)),
};

/** One pool for each dial function. */
const DIALLED = new WeakMap<Dial, DialAgent>();

/** With cut strings, a body may be this many times larger than its limit; then it is considered endless. */
const MAX_CUT_RATIO = 64;

/** Retry interval, within the call's time limit, of a connect without a free file descriptor. */
const OUT_OF_FILES_PAUSE_MS = 100;

/** Error codes of a pooled connection that the server closed just as it was reused. */
const CLOSED_MEANWHILE = new Set(['ECONNRESET', 'EPIPE']);

/** One request and its response, bounded by a signal and a time limit. Fails with a `RequestError`, or with what `beforeSend` throws. */
export class HttpCall {
  readonly #outgoing: Outgoing;
  readonly #signal: AbortSignal | undefined;
  /** Rejects when the call fails. */
  readonly #failure: Promise<never>;
  #reject!: (error: Error) => void;
  #request: ClientRequest | undefined;
  #timer: NodeJS.Timeout | undefined;
  #over = false;
  #withheld: string | undefined;
  /** Set while no file descriptor is free. */
  #outOfFiles: RequestError | undefined;

  constructor(outgoing: Outgoing, signal: AbortSignal | undefined) {
    this.#outgoing = outgoing;
    this.#signal = signal;
    this.#failure = new Promise((_, reject) => {
      this.#reject = reject;
    });
    this.#failure.catch(() => {});
    signal?.addEventListener('abort', this.#cancel, { once: true });
    if (signal?.aborted) this.#cancel();
  }

  /** Why the request was sent without its password. */
  get withheld(): string | undefined {
    return this.#withheld;
  }

  /** Limits the time from now on; undefined removes the limit. */
  limit(ms: number | undefined): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (ms === undefined) return;
    const timer = setTimeout(() => {
      // Sockets are read before this runs, so an answer that arrived while the process was busy still counts.
      setImmediate(() => {
        if (this.#timer !== timer) return;
        const late = new RequestError('timeout', `${this.#outgoing.label}: no complete answer within ${ms} ms`);
        this.#fail(this.#outOfFiles ?? late);
      });
    }, ms);
    this.#timer = timer;
  }

  /** Sends the request. Resolves with the response, its body unread. */
  headers(): Promise<IncomingMessage> {
    if (this.#over) return this.#failure;
    const answered = new Promise<IncomingMessage>((resolve) => this.#send(resolve, true));
    return Promise.race([answered, this.#failure]);
  }

  /**
   * The whole body as text.
   * @param maxStringBytes cuts longer strings in JSON; `maxBytes` counts what is left
   */
  text(response: IncomingMessage, maxBytes: number, maxStringBytes?: number): Promise<string> {
    const { label } = this.#outgoing;
    const cutter = maxStringBytes === undefined ? undefined : new JsonCutter(maxStringBytes);
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    let arrived = 0;
    const read = new Promise<string>((resolve) => {
      response.on('data', (chunk: Buffer) => {
        const kept = cutter?.write(chunk) ?? chunk;
        bytes += kept.length;
        arrived += chunk.length;
        if (bytes > maxBytes || arrived > maxBytes * MAX_CUT_RATIO) {
          this.#fail(new RequestError('too-large', `${label}: the body is larger than ${maxBytes} bytes`));
        } else {
          chunks.push(kept);
        }
      });
      response.once('error', (error) => this.#fail(networkError(error, label, true)));
      response.once('end', () => {
        this.#over = true;
        resolve(Buffer.concat(chunks).toString('utf8'));
      });
    });
    return Promise.race([read, this.#failure]);
  }

  /** Stops listening to the signal, and destroys a connection whose response was not read completely. */
  end(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#cancel);
    if (this.#over) return;
    this.#over = true;
    this.#request?.destroy();
  }

  #send(resolve: (response: IncomingMessage) => void, mayReuse: boolean): void {
    const { url, method, headers, body, label, secretFor, beforeSend } = this.#outgoing;
    const secure = url.startsWith('https:');
    const connecting = connectionOf(this.#outgoing, secure, mayReuse);
    let connected = false;
    const request = (secure ? requestHttps : requestHttp)(url, { method, headers, ...connecting });
    this.#request = request;
    const go = (withheld: Withheld | undefined): void => {
      connected = true;
      this.#outOfFiles = undefined;
      try {
        if (withheld?.isForeign === true) {
          const { reason } = withheld;
          throw new RequestError('unreachable', `${label}: ${reason}`, { withheld: reason });
        }
        this.#withheld = withheld?.reason;
        if (withheld !== undefined) request.removeHeader('authorization');
        beforeSend?.();
        request.end(body);
      } catch (error) {
        this.#fail(error as Error);
      }
    };
    whenConnected(request, secretFor, go, () => {
      this.#send(resolve, false);
      request.destroy();
    });
    request.once('response', resolve);
    // Before the response; later failures are events of the response.
    request.on('error', (error: NodeJS.ErrnoException) => {
      // Replaced by another connection.
      if (this.#request !== request) return;
      // The server may have received it, so only a request without side effects is sent again.
      const again = request.reusedSocket && method === 'GET' && CLOSED_MEANWHILE.has(error.code ?? '');
      if (again && !this.#over) this.#send(resolve, false);
      else if (OUT_OF_FILES.has(error.code ?? '')) {
        this.#outOfFiles = networkError(error, label, false);
        closeIdle();
        setTimeout(() => {
          if (!this.#over) this.#send(resolve, mayReuse);
        }, OUT_OF_FILES_PAUSE_MS);
      } else this.#fail(networkError(error, label, connected));
    });
  }

  readonly #cancel = (): void => {
    this.#fail(new RequestError('cancelled', `${this.#outgoing.label}: cancelled`));
  };

  /** The first failure counts. */
  #fail(error: Error): void {
    if (this.#over) return;
    this.#reject(error);
    this.end();
  }
}

function connectionOf({ dial, via, pooled }: Outgoing, secure: boolean, mayReuse: boolean): RequestOptions {
  const reuse = pooled && mayReuse;
  if (via !== undefined) return reuse ? via : { ...via, agent: false };
  if (dial === undefined) return { agent: reuse && POOLS[secure ? 'https' : 'http'] };
  if (!reuse) return { createConnection: dialConnector(dial) };
  let agent = DIALLED.get(dial);
  if (agent === undefined) DIALLED.set(dial, (agent = keeping(new DialAgent(dial))));
  return { agent };
}

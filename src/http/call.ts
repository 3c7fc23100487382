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

/** One HTTP request, ready to be sent. */
export interface Outgoing {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  /** The connection may be one of an earlier request, and is kept for a later one. */
  readonly pooled: boolean;
  /** What errors say of it. */
  readonly label: string;
  /** Makes the connection, where that is not simply connecting. */
  readonly dial?: Dial | undefined;
  /** A local socket in place of the host of `url`, and the agent that keeps its connections. */
  readonly via?: Pick<RequestOptions, 'socketPath' | 'agent'> | undefined;
  /** Set where not just anyone may get the request: on this machine only a port of the right user and process does. */
  readonly secretFor?: Receiver | undefined;
  /** Called when there is a connection, before anything is sent; what it throws fails the call. */
  readonly beforeSend?: (() => void) | undefined;
}

/**
 * node:http and not fetch: undici keeps some 20 KB for each address that it ever tried, and takes twice the memory and
 * time for 200 servers (Node 20.20).
 */
const POOLS = {
  http: keeping(new Agent(KEEPING)),
  https: keeping(new SecureAgent(KEEPING)),
};

/** One pool for each means of dialling. */
const DIALLED = new WeakMap<Dial, DialAgent>();

/** How much more than what may be left of a body is read where its strings are cut: a body without end is none. */
const MOST_CUT = 64;

/** Connections end all the time: one that found no file free is tried again, for as long as the call may take. */
const OUT_OF_FILES_PAUSE_MS = 100;

/** What a kept connection says when the server closed it just as it was used again. */
const CLOSED_MEANWHILE = new Set(['ECONNRESET', 'EPIPE']);

/** One request and its response, cut by a signal or a time limit. Whatever goes wrong is a `RequestError`, or what `beforeSend` throws. */
export class HttpCall {
  readonly #outgoing: Outgoing;
  readonly #signal: AbortSignal | undefined;
  /** Rejects when the call fails; nobody may be waiting for it then. */
  readonly #failure: Promise<never>;
  #reject!: (error: Error) => void;
  #request: ClientRequest | undefined;
  #timer: NodeJS.Timeout | undefined;
  #over = false;
  #withheld: string | undefined;
  /** Set while no file is free for a connection. */
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

  /** Why the request went out without its password. */
  get withheld(): string | undefined {
    return this.#withheld;
  }

  /** From now on the call may take so long; undefined: as long as it likes. */
  limit(ms: number | undefined): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (ms === undefined) return;
    const timer = setTimeout(() => {
      // What arrived while this process was busy counts: sockets are read before this runs, and may have ended the limit.
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
   * @param maxStringBytes longer strings are cut, of JSON; they count as what is left of them
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
        if (bytes > maxBytes || arrived > maxBytes * MOST_CUT) {
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

  /** Lets go of the signal and of a connection whose response was not read to its end. */
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
      // Given up for another connection.
      if (this.#request !== request) return;
      // The server may have seen it, so only requests that change nothing are sent again.
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

  /** The first failure counts; what follows from it does not. */
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

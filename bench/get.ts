import { once } from 'node:events';
import { Agent, type IncomingMessage, request as requestHttp } from 'node:http';

/** Where a request goes. */
export interface Place {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A kept-alive connection for consecutive requests. */
export function keptConnection(): Agent {
  return new Agent({ keepAlive: true, maxSockets: 1 });
}

export interface Got {
  /** From the request to the first byte of the body, including connecting if the connection is new. */
  readonly firstMs: number;
  /** From the first byte to the last requested one. */
  readonly restMs: number;
  /** The beginning of the body. */
  readonly text: string;
  readonly etag: string;
}

export interface GetOptions {
  readonly agent?: Agent;
  /** Reads only the first bytes of the body. */
  readonly only?: 'first';
  readonly expect?: 200 | 304;
  readonly signal?: AbortSignal;
}

const MAX_TEXT_CHARS = 100_000;

/** One request; reads the whole body. */
export async function get(place: Place, options: GetOptions = {}): Promise<Got> {
  const { agent = false, only, expect = 200, signal } = options;
  const startMs = performance.now();
  const request = requestHttp({ ...place, agent, ...(signal && { signal }) });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  if (response.statusCode !== expect)
    throw new Error(`Expected ${expect} of ${place.path}, got ${response.statusCode}`);
  let firstAtMs: number | undefined;
  let text = '';
  for await (const chunk of response as AsyncIterable<Buffer>) {
    firstAtMs ??= performance.now();
    if (text.length < MAX_TEXT_CHARS) text += chunk.toString('latin1');
    if (only === 'first') break;
  }
  if (only === 'first') request.destroy();
  firstAtMs ??= performance.now();
  return {
    firstMs: firstAtMs - startMs,
    restMs: performance.now() - firstAtMs,
    text,
    etag: response.headers.etag ?? '',
  };
}

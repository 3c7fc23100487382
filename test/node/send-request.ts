import { once } from 'node:events';
import { type IncomingMessage, type OutgoingHttpHeaders, request as requestHttp } from 'node:http';
import { text as readText } from 'node:stream/consumers';

import { within } from '../rig/wait.ts';

export interface CallOptions {
  readonly from?: string;
  readonly method?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
}

export type Answer = Awaited<ReturnType<typeof sendRequest>>;

/** Sends a request on a new connection, and reads the whole answer. */
export async function sendRequest(
  to: { readonly host: string; readonly port: number; readonly path: string },
  { from, method = 'GET', headers = {}, body }: CallOptions,
) {
  // Node's client sets no content length for the body of a DELETE.
  const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
  const local = from === undefined ? {} : { localAddress: from };
  const request = requestHttp({ ...to, ...local, method, headers: { ...length, ...headers }, agent: false });
  const responseEvent = once(request, 'response') as Promise<[IncomingMessage]>;
  request.on('error', () => {}).end(body);
  const [response] = await within(responseEvent, `${method} ${to.path}`);
  const text = await within(readText(response), `the answer to ${method} ${to.path}`);
  return { status: response.statusCode, headers: response.headers, text };
}

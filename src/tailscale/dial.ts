import { type ClientRequest, type IncomingMessage, request as requestHttp } from 'node:http';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { openSocket } from '../base/dial.ts';
import { reasonOf } from '../base/errors.ts';
import { quoteShort } from '../base/plain-text.ts';
import { networkError } from '../http/request-error.ts';
import { type Asking, bounded, failure, localError, refused, targetOf } from './exchange.ts';

/** `self`: not a tailnet address; connect to `self` directly. Otherwise an error. */
type Refusal = { readonly self: string } | { readonly status: number; readonly text: string };

/** Enough for the text of a failed dial. */
const MAX_ERROR_CHARS = 4096;

/**
 * A raw stream to `host:port` through tailscaled, by an HTTP upgrade (1.98.10 and 1.102.3). Half-close is not supported: ending
 * the write side ends the stream. Since 1.98 the daemon may answer to connect directly; that is done only for the requested
 * address, so that an impostor of tailscaled cannot redirect the request.
 */
export async function dialPeer(asking: Asking, host: string, port: number): Promise<Duplex> {
  const { url, headers, via } = targetOf(asking);
  const request = requestHttp(url, {
    method: 'POST',
    agent: false,
    ...via,
    headers: {
      ...headers,
      // tailscaled compares it case-sensitively.
      connection: 'upgrade',
      upgrade: 'ts-dial',
      'dial-host': host,
      'dial-port': String(port),
      'content-length': '0',
    },
  });
  try {
    return await bounded(asking, async (cut) => {
      const dialled = await answerOf(request);
      if ('self' in dialled) return await connectDirectly(dialled.self, { host, port }, asking, cut);
      if ('status' in dialled) throw refused(dialled, asking);
      return dialled;
    });
  } catch (error) {
    request.destroy();
    throw localError(error, asking);
  }
}

function answerOf(request: ClientRequest): Promise<Duplex | Refusal> {
  return new Promise((resolve, reject) => {
    request.once('upgrade', (_response, stream: Duplex, head: Buffer) => {
      // The peer may have sent data already.
      if (head.length > 0) stream.unshift(head);
      resolve(stream);
    });
    request.once('response', (response) => void rejectionOf(response).then(resolve, reject));
    request.on('error', (error) => reject(networkError(error, 'dial', false)));
    request.end();
  });
}

async function rejectionOf(response: IncomingMessage): Promise<Refusal> {
  const self = response.headers['dial-addr'];
  if (response.statusCode === 200 && response.headers['dial-self'] === 'true' && typeof self === 'string') {
    response.destroy();
    return { self };
  }
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response as AsyncIterable<string>) {
    text += chunk;
    if (text.length > MAX_ERROR_CHARS) break;
  }
  return { status: response.statusCode ?? 0, text };
}

async function connectDirectly(
  address: string,
  { host, port }: { readonly host: string; readonly port: number },
  asking: Asking,
  cut: AbortSignal,
): Promise<Duplex> {
  if (isIP(host) === 0 || !isSameAddress(address, host, port)) {
    throw failure(
      'failed',
      asking,
      `${host} port ${port} is not a machine of the tailnet: tailscaled answered to connect to ${quoteShort(address, 100)}, which is not followed`,
    );
  }
  return openSocket({ host, port }, cut).catch((error: unknown) => {
    throw failure('failed', asking, reasonOf(error), error);
  });
}

function isSameAddress(address: string, host: string, port: number): boolean {
  const parts = /^\[?([^[\]]+)\]?:(\d+)$/.exec(address);
  const given = parts?.[1] ?? '';
  return Number(parts?.[2]) === port && isIP(given) === isIP(host) && canonical(given) === canonical(host);
}

/** One spelling for each IPv6 address. */
function canonical(address: string): string {
  return isIP(address) === 6 ? new URL(`http://[${address}]/`).hostname : address;
}

import { type ClientRequest, type IncomingMessage, request as requestHttp } from 'node:http';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { openSocket } from '../base/dial.ts';
import { reasonOf } from '../base/errors.ts';
import { quoteName, singleLine } from '../base/plain-text.ts';
import { networkError } from '../http/request-error.ts';
import { type Asking, bounded, failure, localError, refused, targetOf } from './exchange.ts';

/** What tailscaled said to a dial: that it is no tailnet address and one should connect oneself, or why it failed. */
type Refusal = { readonly self: string } | { readonly status: number; readonly text: string };

/** Enough for a dial failure's text. */
const MAX_ERROR_CHARS = 4096;

/**
 * A raw stream to `host:port` through tailscaled: an HTTP upgrade (1.98.10 and 1.102.3). Without half-close: ending the
 * write side ends all. Since 1.98 the daemon may answer that one should connect directly; that is followed only to the
 * very address that was asked for, or a tailscaled (or what passes for one) could send the request elsewhere.
 */
export async function dialPeer(asking: Asking, host: string, port: number): Promise<Duplex> {
  const { url, headers, via } = targetOf(asking);
  const request = requestHttp(url, {
    method: 'POST',
    agent: false,
    ...via,
    headers: {
      ...headers,
      // In lower case: tailscaled looks for the word as it is.
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
      // The peer may have spoken first.
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
    const elsewhere = quoteName(singleLine(address, 100));
    throw failure(
      'failed',
      asking,
      `${host} port ${port} is no machine of the tailnet: tailscaled says to connect to ${elsewhere}, which is not followed`,
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

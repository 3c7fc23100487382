import { connect, isIP } from 'node:net';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { quoteName, singleLine } from '../base/plain-text.ts';
import { type Asking, bounded, failure, prepareLocal, refused, unreachable } from './exchange.ts';

/** What tailscaled said to a dial: a stream, or that it is no tailnet address and one should connect oneself. */
type Dialled =
  | { readonly stream: Duplex }
  | { readonly self: string }
  | { readonly status: number; readonly text: string };

/** Enough for a dial failure's text. */
const MAX_ERROR_CHARS = 4096;

/**
 * A raw stream to `host:port` through tailscaled: an HTTP upgrade (1.98.10 and 1.102.3). Without half-close: ending the
 * write side ends all. Since 1.98 the daemon may answer that one should connect directly; that is followed only to the
 * very address that was asked for, or a tailscaled (or what passes for one) could send the request elsewhere.
 */
export function dialPeer(asking: Asking, host: string, port: number): Promise<Duplex> {
  const upgrade: Asking = {
    ...asking,
    headers: {
      // In lower case: tailscaled looks for the word as it is.
      connection: 'upgrade',
      upgrade: 'ts-dial',
      'dial-host': host,
      'dial-port': String(port),
      'content-length': '0',
    },
  };
  return bounded(upgrade, async (started) => {
    let open: Duplex | undefined;
    const dialled = await new Promise<Dialled>((resolve, reject) => {
      const request = prepareLocal(upgrade);
      started(request);
      request.once('upgrade', (_response, stream: Duplex, head: Buffer) => {
        // The peer may have spoken first.
        if (head.length > 0) stream.unshift(head);
        open = stream;
        resolve({ stream });
      });
      request.once('response', (response) => void rejectionOf(response).then(resolve, reject));
      request.on('error', (error) => reject(unreachable(error, upgrade)));
      request.end();
    });
    upgrade.signal?.throwIfAborted();
    if ('stream' in dialled) return open ?? dialled.stream;
    if ('self' in dialled) return connectDirectly(dialled.self, host, port, upgrade);
    throw refused(dialled, upgrade);
  });
}

async function rejectionOf(response: IncomingMessage): Promise<Dialled> {
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

function connectDirectly(address: string, host: string, port: number, asking: Asking): Promise<Duplex> {
  if (isIP(host) === 0 || !isSameAddress(address, host, port)) {
    const elsewhere = quoteName(singleLine(address, 100));
    throw failure(
      'failed',
      asking,
      `${host} port ${port} is no machine of the tailnet: tailscaled says to connect to ${elsewhere}, which is not followed`,
    );
  }
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    const cut = (): void => void socket.destroy();
    asking.signal?.addEventListener('abort', cut, { once: true });
    socket.once('connect', () => {
      asking.signal?.removeEventListener('abort', cut);
      resolve(socket);
    });
    socket.once('error', (error) => reject(failure('failed', asking, singleLine(error.message, 200), error)));
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

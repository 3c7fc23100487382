import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { onTestFinished } from 'vitest';

import { CurrentEndpoint } from '../../src/attach/current-endpoint.ts';
import { TOOL_WORDS } from '../../src/model/advice.ts';
import type { Clock } from '../../src/base/clock.ts';
import { systemClock } from '../../src/base/clock.ts';
import { type Reached, UnreachableError } from '../../src/fleet/fleet.ts';
import type { Connection } from '../../src/http/exchange.ts';
import { type Answer, type CallOptions, sendRequest } from '../node/send-request.ts';

/** The instance's own password. */
export const OWN = 'the password of the instance';

export const basic = (password: string): string => `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}`;

interface SeenRequest {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

type Instance = Awaited<ReturnType<typeof startInstance>>;

/**
 * One endpoint of an instance. `/event` streams, `/broken` ends without an answer, `/locked` refuses the password. `/refused` answers
 * like a node service that could not forward it. Any other path answers `name`.
 */
export async function startInstance(
  name: string,
  endpoint: Partial<Connection['endpoint']> & {
    readonly prefix?: string;
    readonly answerHeaders?: Readonly<Record<string, string | string[]>>;
  } = {},
) {
  const seen: SeenRequest[] = [];
  const streams = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (part: string) => (body += part));
    request.once('end', () => {
      const { method, url = '', headers } = request;
      seen.push({ method, url, headers, body });
      if (url.endsWith('/broken')) response.destroy();
      else if (url.endsWith('/locked')) response.writeHead(401, { 'www-authenticate': 'Basic' }).end(OWN);
      else if (url.endsWith('/refused') && endpoint.route === 'tailnet')
        response.writeHead(502, { 'proxy-status': 'opencode-mcp; error=connection_refused' }).end();
      else if (url.endsWith('/event')) {
        streams.add(response);
        response.once('close', () => streams.delete(response));
        response.writeHead(200, { 'content-type': 'text/event-stream' }).write(`data: ${name}\n\n`);
      } else response.writeHead(200, { 'set-cookie': 'stolen=1', ...endpoint.answerHeaders }).end(name);
    });
  });
  server.on('upgrade', ({ method, url, headers }, socket) => {
    seen.push({ method, url, headers, body: '' });
    socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const { prefix = '', answerHeaders: _, ...more } = endpoint;
  const connection: Connection = {
    endpoint: { url: `http://127.0.0.1:${port}${prefix}`, route: 'loopback', ...more },
    credential: { username: 'opencode', password: OWN },
  };
  /** `close` refuses new connections; open ones stay. */
  return { seen, streams, connection, close: () => server.close() };
}

/** Uses the first endpoint; whenever it fails, the fleet reaches the next, and finally none. */
export function endpointBy(
  [first, ...others]: readonly Pick<Instance, 'connection'>[],
  clock: Clock = systemClock,
): CurrentEndpoint {
  const remaining = [...others];
  const asReached = ({ connection }: Pick<Instance, 'connection'>): Reached => ({ connection }) as Reached;
  const controller = new AbortController();
  onTestFinished(() => controller.abort());
  if (first === undefined) throw new Error('Expected an endpoint, got none');
  return new CurrentEndpoint(asReached(first), {
    clock,
    words: TOOL_WORDS,
    signal: controller.signal,
    fleet: {
      reachAnother: async () => {
        const next = remaining.shift();
        if (next === undefined) throw new UnreachableError('worker cannot be driven now. See that it runs.');
        return asReached(next);
      },
    },
  });
}

export type Asked = Answer;

export interface Asking extends CallOptions {
  readonly port: number;
  readonly path?: string;
  readonly host?: string;
}

export function ask({ host = '127.0.0.1', port, path = '/session', ...options }: Asking): Promise<Asked> {
  return sendRequest({ host, port, path }, options);
}

/** The head of the answer to a WebSocket handshake. */
export function askUpgrade(port: number, headers: Readonly<Record<string, string>>): Promise<string> {
  return new Promise((resolve, reject) => {
    const all = { host: `127.0.0.1:${port}`, connection: 'Upgrade', upgrade: 'websocket', ...headers };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET /pty/1/connect HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
    let text = '';
    socket.setEncoding('utf8').on('data', (part: string) => (text += part));
    socket.once('error', reject).once('close', () => resolve(text));
  });
}

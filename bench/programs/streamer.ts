/** The part of an opencode that a node service requests, and an event stream of any length: `GET /event?bytes=<n>`. */
import type { ServerResponse } from 'node:http';
import { pipeline, Readable } from 'node:stream';

import { listenHttp } from '../../test/rig/http-listener.ts';
import { serveOrders } from './orders.ts';

export interface StreamerPlace {
  readonly port: number;
  readonly directory: string;
}

const DIRECTORY = '/home/user/streamer';

/** The first event of a stream. */
const FIRST = 'data: {"id":"evt_1","type":"server.connected","properties":{}}\n\n';
/** A text delta of a model's answer. */
const EVENT = `data: ${JSON.stringify({ id: 'evt_2', type: 'message.part.delta', properties: { delta: 'x'.repeat(900) } })}\n\n`;
const BLOCK = Buffer.from(EVENT.repeat(16));

const listener = await listenHttp(({ url = '' }, response) => {
  const { pathname, searchParams } = new URL(url, 'http://streamer');
  if (pathname === '/global/health') answer(response, { healthy: true, version: '1.18.33' });
  else if (pathname === '/path') answer(response, { directory: DIRECTORY, worktree: DIRECTORY });
  else if (pathname === '/event') stream(response, Number(searchParams.get('bytes') ?? 0));
  else answer(response, []);
});
const place: StreamerPlace = { port: listener.port, directory: DIRECTORY };
await serveOrders(place, () => ({}));
process.exit(0);

function answer(response: ServerResponse, value: object): void {
  const text = JSON.stringify(value);
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length }).end(text);
}

function stream(response: ServerResponse, bytes: number): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(FIRST);
  if (bytes === 0) return;
  let left = Math.ceil(bytes / BLOCK.length);
  const blocks = new Readable({
    highWaterMark: BLOCK.length,
    read() {
      left -= 1;
      this.push(left >= 0 ? BLOCK : null);
    },
  });
  pipeline(blocks, response, () => {});
}

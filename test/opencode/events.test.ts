import { expect, test } from 'vitest';

import { openEvents } from '../../src/opencode/events.ts';
import { listenHttp } from '../rig/http-listener.ts';

test('a large chunk is parsed in pieces, with turns of the event loop between them', async () => {
  const event = 'data: {"type":"session.status","properties":{"status":"x"}}\n\n';
  const count = 20_000;
  await using listener = await listenHttp((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(event.repeat(count));
  });
  const events = await openEvents({ endpoint: { url: listener.url, route: 'loopback' } }, '/event');
  let inTurn = 0;
  let most = 0;
  let all = 0;
  const turn = (): void => {
    most = Math.max(most, inTurn);
    inTurn = 0;
    if (all < count) setImmediate(turn);
  };
  turn();
  for await (const _ of events) {
    all += 1;
    inTurn += 1;
  }
  events.close();
  expect(all).toBe(count);
  expect(most).toBeGreaterThan(0);
  // The last piece of one chunk and the first of the next; a chunk has four.
  expect(most * event.length).toBeLessThan(40_000);
});

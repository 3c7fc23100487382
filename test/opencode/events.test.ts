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
  let eventsInTurn = 0;
  let largestTurn = 0;
  let total = 0;
  const turn = (): void => {
    largestTurn = Math.max(largestTurn, eventsInTurn);
    eventsInTurn = 0;
    if (total < count) setImmediate(turn);
  };
  turn();
  for await (const _ of events) {
    total += 1;
    eventsInTurn += 1;
  }
  events.close();
  expect(total).toBe(count);
  expect(largestTurn).toBeGreaterThan(0);
  // A turn handles at most the last piece of one chunk and the first of the next; a chunk has four pieces.
  expect(largestTurn * event.length).toBeLessThan(40_000);
});

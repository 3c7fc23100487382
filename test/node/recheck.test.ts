import type { ServerResponse } from 'node:http';

import { describe, expect, test } from 'vitest';

import { WHOIS_LIFETIME_MS } from '../../src/node/access/callers.ts';
import { RECHECK_MS } from '../../src/node/access/gate.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import {
  acceptTerminal,
  CAPABILITY,
  type ClockedStage,
  DIRECTORY,
  openClockedStage,
  OWN_LAPTOP,
  READER,
  requestText,
  UPGRADE,
  type NodeStage,
} from './stage.ts';

const reader = tailnetNode({ id: 'reader', addresses: [READER], userId: 'user-bob' });

/** Opens an event stream; the function that it returns says whether the stream is closed. */
async function openEventStream(stage: NodeStage, from: string): Promise<() => boolean> {
  const { socket, receives } = await stage.open(requestText(stage.path('/event')), from);
  await receives('200 OK');
  return () => socket.closed;
}

describe('an open stream', () => {
  const events = {
    handler: (_: unknown, response: ServerResponse): void => {
      response.writeHead(200).flushHeaders();
    },
  };

  test('is rechecked every minute, and continues while the caller is admitted', async () => {
    await using stage = await openClockedStage(events);
    const isClosed = await openEventStream(stage, OWN_LAPTOP);
    for (let minutes = 1; minutes <= 3; minutes += 1) {
      await stage.clock.advance(RECHECK_MS);
      expect(stage.api.asked.length).toBe(1 + minutes);
    }
    expect(isClosed()).toBe(false);
  });

  test.each<[string, (stage: NodeStage) => void]>([
    ['the grant is removed', ({ api }) => void api.callers.set(READER, whoisOf(reader, 'bob@example.com'))],
    ['the machine leaves the tailnet', ({ api }) => void api.callers.delete(READER)],
    ['whois fails', ({ api }) => void api.callers.set(READER, () => Promise.reject(new Error('broken')))],
    [
      "another machine gets the caller's address",
      ({ api }) => {
        const other = tailnetNode({ id: 'other', userId: 'user-eve' });
        api.join(other, whoisOf(other, 'eve@example.com'));
        api.callers.set(READER, whoisOf(other, 'eve@example.com'));
      },
    ],
  ])('is cut when %s', async (_, endAccess) => {
    await using stage = await openClockedStage(events);
    const isClosed = await openEventStream(stage, READER);
    endAccess(stage);
    await stage.clock.advance(RECHECK_MS - 1);
    expect(isClosed()).toBe(false);
    await stage.clock.advance(1);
    await until('the stream to be cut', isClosed);
    expect(stage.log.some(({ message }) => message === 'cut')).toBe(true);
  });

  test('is cut when the role drops from drive to read, and continues when it rises', async () => {
    await using stage = await openClockedStage(events);
    const driving = whoisOf(reader, 'bob@example.com', { [CAPABILITY]: [{ role: 'drive' }] });
    stage.api.callers.set(READER, driving);
    const isClosed = await openEventStream(stage, READER);
    stage.api.callers.set(READER, whoisOf(reader, 'bob@example.com', { [CAPABILITY]: [{ role: 'read' }] }));
    await stage.clock.advance(RECHECK_MS);
    await until('the stream to be cut', isClosed);
    const isSecondClosed = await openEventStream(stage, READER);
    expect(stage.seen.at(-1)?.url).toBe(`/event?directory=${encodeURIComponent(DIRECTORY)}`);
    stage.api.callers.set(READER, driving);
    await stage.clock.advance(RECHECK_MS);
    expect(isSecondClosed()).toBe(false);
  });
});

test.each<[string, (stage: ClockedStage) => Promise<void>]>([
  [
    "the caller's access ends",
    async ({ api, clock }) => {
      api.callers.delete(OWN_LAPTOP);
      await clock.advance(RECHECK_MS);
    },
  ],
  ['the service closes, as after a revocation', ({ service }) => service.close()],
])('a WebSocket is cut at both ends when %s', async (_, end) => {
  let isInstanceClosed = false;
  await using stage = await openClockedStage({ onUpgrade: acceptTerminal(() => (isInstanceClosed = true)) });
  const { socket, receives } = await stage.open(requestText(stage.path('/pty/p/connect'), UPGRADE));
  await receives('101');
  await end(stage);
  await until('both ends to be cut', () => socket.closed && isInstanceClosed);
});

describe('whois', () => {
  test('is cached for ten seconds per connection, even if the machine’s clock is set back', async () => {
    await using stage = await openClockedStage();
    const { socket, receives } = await stage.open(requestText(stage.path('/session?limit=1')), READER);
    await receives('limit=1&');
    stage.api.callers.set(READER, whoisOf(reader, 'bob@example.com'));
    stage.clock.step(-3_600_000);
    await stage.clock.advance(WHOIS_LIFETIME_MS - 1);
    socket.write(requestText(stage.path('/session?limit=2')));
    await receives('limit=2&');
    await stage.clock.advance(1);
    socket.write(requestText(stage.path('/session?limit=3')));
    await receives('403 Forbidden');
    expect(stage.seen).toHaveLength(2);
  });

  test('that hangs makes the request fail after three seconds', async () => {
    await using stage = await openClockedStage();
    stage.api.callers.set(OWN_LAPTOP, () => new Promise(() => {}));
    const answer = stage.ask('/session');
    await until('whois to be called', () => stage.api.asked.length === 1);
    await stage.clock.advance(2999);
    expect(stage.seen).toEqual([]);
    await stage.clock.advance(1);
    expect(await answer).toMatchObject({ status: 503, text: expect.stringContaining('within 3000 ms') });
    expect(stage.seen).toEqual([]);
  });
});

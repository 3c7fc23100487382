import type { ServerResponse } from 'node:http';

import { describe, expect, test } from 'vitest';

import { WHOIS_LIFETIME_MS } from '../../src/node/access/callers.ts';
import { RECHECK_MS } from '../../src/node/access/gate.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import { CAPABILITY, DIRECTORY, openNodeStage, OWN_LAPTOP, READER, SELF, type NodeStage } from './stage.ts';

const reader = tailnetNode({ id: 'reader', addresses: [READER], userId: 'user-bob' });

/** An open event stream. */
async function stream(
  stage: NodeStage,
  from: string,
): Promise<{ readonly text: () => string; readonly closed: () => boolean }> {
  const socket = await stage.connect(from);
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  socket.write(`GET ${stage.path('/event')} HTTP/1.1\r\nHost: ${SELF}\r\n\r\n`);
  await until('the head of the stream', () => text.includes('200 OK'));
  return { text: () => text, closed: () => socket.closed };
}

describe('an open stream', () => {
  const events = {
    handler: (_: unknown, response: ServerResponse): void => {
      response.writeHead(200).flushHeaders();
    },
  };

  test('is rechecked every minute and goes on while the right lasts', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock, ...events });
    const { closed } = await stream(stage, OWN_LAPTOP);
    for (let minutes = 1; minutes <= 3; minutes += 1) {
      await clock.advance(RECHECK_MS);
      expect(stage.api.asked.length).toBe(1 + minutes);
    }
    expect(closed()).toBe(false);
  });

  test.each<[string, (stage: NodeStage) => void]>([
    ['the grant was taken away', ({ api }) => void api.callers.set(READER, whoisOf(reader, 'bob@example.com'))],
    ['the machine is gone', ({ api }) => void api.callers.delete(READER)],
    ['whois fails', ({ api }) => void api.callers.set(READER, () => Promise.reject(new Error('broken')))],
    [
      'another machine has its address now',
      ({ api }) => {
        const other = tailnetNode({ id: 'other', userId: 'user-eve' });
        api.join(other, whoisOf(other, 'eve@example.com'));
        api.callers.set(READER, whoisOf(other, 'eve@example.com'));
      },
    ],
  ])('is cut when %s', async (_, end) => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock, ...events });
    const { closed } = await stream(stage, READER);
    end(stage);
    await clock.advance(RECHECK_MS - 1);
    expect(closed()).toBe(false);
    await clock.advance(1);
    await until('the stream to be cut', closed);
    expect(stage.log.some(({ message }) => message === 'cut')).toBe(true);
  });

  test('is cut when the role drops from drive to read', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock, ...events });
    const driving = whoisOf(reader, 'bob@example.com', { [CAPABILITY]: [{ role: 'drive' }] });
    stage.api.callers.set(READER, driving);
    const { closed } = await stream(stage, READER);
    stage.api.callers.set(READER, whoisOf(reader, 'bob@example.com', { [CAPABILITY]: [{ role: 'read' }] }));
    await clock.advance(RECHECK_MS);
    await until('the stream to be cut', closed);
    // What reads goes on when it has become more.
    const second = await stream(stage, READER);
    expect(stage.seen.at(-1)?.url).toBe(`/event?directory=${encodeURIComponent(DIRECTORY)}`);
    stage.api.callers.set(READER, driving);
    await clock.advance(RECHECK_MS);
    expect(second.closed()).toBe(false);
  });

  test('a WebSocket is cut as well', async () => {
    const clock = new ManualClock();
    let instanceClosed = false;
    await using stage = await openNodeStage({
      clock,
      onUpgrade: (_, socket) => {
        socket.on('error', () => {}).once('close', () => (instanceClosed = true));
        socket.once('end', () => socket.end()).resume();
        socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
      },
    });
    const socket = await stage.connect();
    let got = '';
    socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
    socket.write(
      `GET ${stage.path('/pty/p/connect')} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    );
    await until('the handshake', () => got.includes('101'));
    stage.api.callers.delete(OWN_LAPTOP);
    await clock.advance(RECHECK_MS);
    await until('both ends to be cut', () => socket.closed && instanceClosed);
  });
});

describe('whois', () => {
  test('is cached for ten seconds per connection, even if the machine’s clock is set back', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const socket = await stage.connect(READER);
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const ask = (): boolean => socket.write(`GET ${stage.path('/session')} HTTP/1.1\r\nHost: ${SELF}\r\n\r\n`);
    ask();
    await until('the first answer', () => text.includes('200 OK'));
    stage.api.callers.set(READER, whoisOf(reader, 'bob@example.com'));
    clock.step(-3_600_000);
    await clock.advance(WHOIS_LIFETIME_MS);
    ask();
    await until('the second answer', () => text.includes('403 Forbidden'));
    expect(stage.seen).toHaveLength(1);
  });

  test('that hangs gives a refusal after three seconds', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    stage.api.callers.set(OWN_LAPTOP, () => new Promise(() => {}));
    const asked = stage.ask('/session');
    await until('whois to be asked', () => stage.api.asked.length === 1);
    await clock.advance(2999);
    expect(stage.seen).toEqual([]);
    await clock.advance(1);
    expect(await asked).toMatchObject({ status: 503, text: expect.stringContaining('within 3000 ms') });
    expect(stage.seen).toEqual([]);
  });

  test('is asked again on a kept connection after ten seconds', async () => {
    const clock = new ManualClock();
    await using stage = await openNodeStage({ clock });
    const socket = await stage.connect();
    let got = '';
    socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
    const answers = (): number => got.match(/HTTP\/1\.1/g)?.length ?? 0;
    const get = async (): Promise<void> => {
      const before = answers();
      socket.write(`GET ${stage.path('/session')} HTTP/1.1\r\nHost: ${SELF}\r\n\r\n`);
      await until('the answer', () => answers() > before);
    };
    await get();
    await clock.advance(9_999);
    await get();
    expect(stage.api.asked.length).toBe(1);
    stage.api.callers.delete(OWN_LAPTOP);
    await clock.advance(1);
    await get();
    expect(stage.api.asked.length).toBe(2);
    expect(got).toContain('HTTP/1.1 403');
  });
});

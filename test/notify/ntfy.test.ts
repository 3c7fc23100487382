import { describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { ChannelTarget, TextLevel } from '../../src/config/notify.ts';
import { ntfyChannel } from '../../src/notify/channels/ntfy.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { readSecret } from '../../src/credentials/secret.ts';
import { startFakeNtfy } from '../rig/fake/fake-ntfy.ts';

const TOPIC = 'ada-agents-5f1c';
const NOT_ABORTED = new AbortController().signal;

const NOTICE: Notice = {
  id: 'abcdefghijklmnopqrstuv',
  event: 'permission',
  atMs: 0,
  host: 'desk',
  instance: 'desk-web',
  directory: '/home/ada/web',
  session: { id: 'ses_1', title: 'Fix the build – 🚧' },
  request: { id: 'per_1', kind: 'permission', text: 'bash "rm -rf build"' },
  link: 'http://desk.tail.ts.net:4095/#/s/desk-web/ses_1/per_1',
};

function channelTo(url: string, level: TextLevel = 'full', token?: Extract<ChannelTarget, { type: 'ntfy' }>['token']) {
  const target = { type: 'ntfy', url, topic: TOPIC, ...(token && { token }) } as const;
  return ntfyChannel(target, level, {
    clock: systemClock,
    readSecret: (ref, signal) =>
      readSecret(ref, { commands: { run: () => Promise.reject(new Error('none')) } }, signal),
  });
}

describe('a topic of an ntfy server', () => {
  it('gets the command, the directory and the link', async () => {
    await using ntfy = await startFakeNtfy();
    await channelTo(ntfy.url).deliver(NOTICE, undefined, NOT_ABORTED);
    expect(ntfy.messages).toMatchObject([
      {
        topic: TOPIC,
        sequence_id: NOTICE.id,
        title: 'Permission: Fix the build – 🚧',
        message: 'bash "rm -rf build"\ndesk /home/ada/web',
        priority: 4,
        tags: ['lock'],
        click: NOTICE.link,
      },
    ]);
  });

  it('shows only the newest notification of a request', async () => {
    await using ntfy = await startFakeNtfy();
    const channel = channelTo(ntfy.url);
    for (const event of ['permission', 'unanswered', 'settled'] as const)
      await channel.deliver({ ...NOTICE, event }, undefined, NOT_ABORTED);
    expect([ntfy.messages.length, ntfy.shown.size]).toEqual([3, 1]);
    expect(ntfy.shown.get(NOTICE.id)).toMatchObject({ title: 'Settled: Fix the build – 🚧', priority: 1 });
  });

  it.each([
    ['none', { message: 'An agent waits for a permission' }],
    ['title', { title: 'Permission: Fix the build – 🚧', message: 'desk /home/ada/web', click: NOTICE.link }],
  ] as const)('at text level %s gets no more text than that level allows', async (level, expected) => {
    await using ntfy = await startFakeNtfy();
    await channelTo(ntfy.url, level).deliver(NOTICE, undefined, NOT_ABORTED);
    expect(ntfy.messages).toMatchObject([expected]);
    const sentJson = JSON.stringify(ntfy.messages);
    expect(sentJson).not.toContain('rm -rf');
    if (level === 'none') expect(sentJson).not.toMatch(/desk|ada\/web|Fix|ses_1|per_1/);
  });

  it('takes the longest text as a message', async () => {
    await using ntfy = await startFakeNtfy();
    const text = '\\"漢🚧'.repeat(1_500);
    await channelTo(ntfy.url).deliver({ ...NOTICE, request: { ...NOTICE.request!, text } }, undefined, NOT_ABORTED);
    expect(ntfy.refused).toEqual([]);
    expect(ntfy.messages[0]?.message).toMatch(/^\\"漢🚧.*…$/s);
  });

  it('gets messages with the configured token', async () => {
    await using ntfy = await startFakeNtfy({ token: 'tk_secret' });
    await channelTo(ntfy.url, 'full', { kind: 'value', value: 'tk_secret' }).deliver(NOTICE, undefined, NOT_ABORTED);
    expect(ntfy.messages.length).toBe(1);
  });

  it.each([
    ['a wrong token', { kind: 'value', value: 'tk_wrong' }, /^POST http:\/\/127\.0\.0\.1:\d+: HTTP 401; it says /],
    ['a token that is not set', { kind: 'unset', variable: 'NTFY_TOKEN' }, /NTFY_TOKEN is not set/],
    ['a file with more than a token', { kind: 'value', value: 'tk_wrong\nmore' }, /expected one word/],
  ] as const)(
    'fails because of %s, with an error that contains neither the token nor the topic',
    async (_, token, message) => {
      await using ntfy = await startFakeNtfy({ token: 'tk_secret' });
      const delivery = channelTo(ntfy.url, 'full', token).deliver(NOTICE, undefined, NOT_ABORTED);
      await expect(delivery).rejects.toThrow(message);
      const errorText = await delivery.catch((error: unknown) => String(error));
      expect(errorText).not.toMatch(/tk_wrong|tk_secret|ada-agents/);
    },
  );

  it('is tried again if it is over its limit, but not if it refuses the message', async () => {
    await using ntfy = await startFakeNtfy();
    ntfy.limit(1);
    const channel = channelTo(ntfy.url);
    await expect(channel.deliver(NOTICE, undefined, NOT_ABORTED)).rejects.toMatchObject({ kind: 'failed' });
    const bad = { ...NOTICE, id: 'not an id' };
    await expect(channel.deliver(bad, undefined, NOT_ABORTED)).rejects.toMatchObject({ kind: 'refused' });
    expect(ntfy.refused).toEqual([42_901, 40_049]);
  });

  it('of a server before 2.16 returns a remark, since it cannot replace notifications', async () => {
    await using ntfy = await startFakeNtfy({ isOld: true });
    const { remark } = await channelTo(ntfy.url).deliver(NOTICE, undefined, NOT_ABORTED);
    expect(remark).toContain('older than ntfy 2.16');
  });
});

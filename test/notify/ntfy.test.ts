import { describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { ChannelTarget, TextLevel } from '../../src/config/notify.ts';
import { ntfyChannel } from '../../src/notify/channels/ntfy.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { readSecret } from '../../src/credentials/secret.ts';
import { startFakeNtfy } from '../rig/fake/fake-ntfy.ts';

const TOPIC = 'ada-agents-5f1c';
const NONE = new AbortController().signal;

const ASKED: Notice = {
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
  it('gets the command, the place and the link', async () => {
    await using ntfy = await startFakeNtfy();
    await channelTo(ntfy.url).deliver(ASKED, undefined, NONE);
    expect(ntfy.messages).toMatchObject([
      {
        topic: TOPIC,
        sequence_id: ASKED.id,
        title: 'Permission: Fix the build – 🚧',
        message: 'bash "rm -rf build"\ndesk /home/ada/web',
        priority: 4,
        tags: ['lock'],
        click: ASKED.link,
      },
    ]);
  });

  it('shows one notification for one fact, the newest', async () => {
    await using ntfy = await startFakeNtfy();
    const channel = channelTo(ntfy.url);
    for (const event of ['permission', 'unanswered', 'settled'] as const)
      await channel.deliver({ ...ASKED, event }, undefined, NONE);
    expect([ntfy.messages.length, ntfy.shown.size]).toEqual([3, 1]);
    expect(ntfy.shown.get(ASKED.id)).toMatchObject({ title: 'Settled: Fix the build – 🚧', priority: 1 });
  });

  it.each([
    ['none', { message: 'An agent waits for a permission' }],
    ['title', { title: 'Permission: Fix the build – 🚧', message: 'desk /home/ada/web', click: ASKED.link }],
  ] as const)('with text %s gets no more than that', async (level, expected) => {
    await using ntfy = await startFakeNtfy();
    await channelTo(ntfy.url, level).deliver(ASKED, undefined, NONE);
    expect(ntfy.messages).toMatchObject([expected]);
    const sent = JSON.stringify(ntfy.messages);
    expect(sent).not.toContain('rm -rf');
    if (level === 'none') expect(sent).not.toMatch(/desk|ada\/web|Fix|ses_1|per_1/);
  });

  it('takes the longest text as a message', async () => {
    await using ntfy = await startFakeNtfy();
    const text = '\\"漢🚧'.repeat(1_500);
    await channelTo(ntfy.url).deliver({ ...ASKED, request: { ...ASKED.request!, text } }, undefined, NONE);
    expect(ntfy.refused).toEqual([]);
    expect(ntfy.messages[0]?.message).toMatch(/^\\"漢🚧.*…$/s);
  });

  it('gets the token from where it is kept', async () => {
    await using ntfy = await startFakeNtfy({ token: 'tk_secret' });
    await channelTo(ntfy.url, 'full', { kind: 'value', value: 'tk_secret' }).deliver(ASKED, undefined, NONE);
    expect(ntfy.messages.length).toBe(1);
  });

  it.each([
    ['a wrong token', { kind: 'value', value: 'tk_wrong' }, /^POST http:\/\/127\.0\.0\.1:\d+: HTTP 401; it says /],
    ['a token that is not set', { kind: 'unset', variable: 'NTFY_TOKEN' }, /NTFY_TOKEN is not set/],
    ['a file with more than a token', { kind: 'value', value: 'tk_wrong\nmore' }, /expected one word/],
  ] as const)('says what is wrong with %s, and never the token or the topic', async (_, token, message) => {
    await using ntfy = await startFakeNtfy({ token: 'tk_secret' });
    const delivery = channelTo(ntfy.url, 'full', token).deliver(ASKED, undefined, NONE);
    await expect(delivery).rejects.toThrow(message);
    const said = await delivery.catch((error: unknown) => String(error));
    expect(said).not.toMatch(/tk_wrong|tk_secret|ada-agents/);
  });

  it('is tried again when it is over its limit, not when it refuses the message', async () => {
    await using ntfy = await startFakeNtfy();
    ntfy.limit(1);
    const channel = channelTo(ntfy.url);
    await expect(channel.deliver(ASKED, undefined, NONE)).rejects.toMatchObject({ kind: 'failed' });
    const bad = { ...ASKED, id: 'not an id' };
    await expect(channel.deliver(bad, undefined, NONE)).rejects.toMatchObject({ kind: 'refused' });
    expect(ntfy.refused).toEqual([42_901, 40_049]);
  });

  it('of a server before 2.16 cannot replace, which a test notification tells', async () => {
    await using ntfy = await startFakeNtfy({ isOld: true });
    const { remark } = await channelTo(ntfy.url).deliver(ASKED, undefined, NONE);
    expect(remark).toContain('older than ntfy 2.16');
  });
});

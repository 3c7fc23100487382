import { createHmac } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { TextLevel } from '../../src/config/notify.ts';
import { webhookChannel } from '../../src/notify/channels/webhook.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { listenHttp } from '../rig/http-listener.ts';

const never = new AbortController().signal;
const FAILED: Notice = {
  id: 'abcdefghijklmnopqrstuv',
  event: 'failed',
  atMs: Date.parse('2026-11-29T12:00:00Z'),
  host: 'desk',
  instance: 'desk-web',
  directory: '/home/ada/web',
  session: { id: 'ses_1', title: 'Fix the build' },
  reason: 'no credit left',
};

interface Posted {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly path: string | undefined;
}

async function post(secret: string | undefined, level: TextLevel = 'full', status = 204): Promise<Posted> {
  const posted: Posted[] = [];
  await using hook = await listenHttp((request, response) => {
    void text(request).then((body) => {
      posted.push({ headers: request.headers, body, path: request.url });
      response.writeHead(status).end();
    });
  });
  const ref = secret === undefined ? undefined : ({ kind: 'value', value: secret } as const);
  const target = { type: 'webhook', url: `${hook.url}/hook/?key=hidden`, ...(ref && { secret: ref }) } as const;
  const channel = webhookChannel(target, level, { clock: systemClock, readSecret: async () => secret });
  await channel.deliver(FAILED, undefined, never);
  const [only] = posted;
  if (only === undefined || posted.length > 1) throw new Error(`${posted.length} requests`);
  return only;
}

/** Verifies the signature as the specification of Standard Webhooks says. */
function verify({ headers, body }: Posted, key: Buffer): boolean {
  const { 'webhook-id': id, 'webhook-timestamp': seconds, 'webhook-signature': signature } = headers;
  expect(Math.abs(Date.now() / 1_000 - Number(seconds))).toBeLessThan(300);
  return (
    signature ===
    `v1,${createHmac('sha256', key)
      .update(`${String(id)}.${String(seconds)}.${body}`)
      .digest('base64')}`
  );
}

describe('a webhook', () => {
  it('gets the notice as JSON, signed with the time', async () => {
    const posted = await post('s3cret');
    expect(posted.path).toBe('/hook/?key=hidden');
    expect(JSON.parse(posted.body)).toEqual({
      id: FAILED.id,
      event: 'failed',
      time: '2026-11-29T12:00:00.000Z',
      title: 'Failed: Fix the build',
      body: 'no credit left\ndesk /home/ada/web',
      host: 'desk',
      instance: 'desk-web',
      directory: '/home/ada/web',
      session: { id: 'ses_1', title: 'Fix the build' },
      reason: 'no credit left',
    });
    expect(verify(posted, Buffer.from('s3cret'))).toBe(true);
    expect(verify({ ...posted, body: posted.body.replace('desk', 'tank') }, Buffer.from('s3cret'))).toBe(false);
  });

  it('accepts a secret in the format of the libraries', async () => {
    const key = Buffer.from('0123456789abcdef0123456789abcdef');
    expect(verify(await post(`whsec_${key.toString('base64')}`), key)).toBe(true);
  });

  it('has no signature without a secret', async () => {
    expect((await post(undefined)).headers).not.toHaveProperty('webhook-signature');
  });

  it.each([
    ['title', /no credit/],
    ['none', /no credit|desk|ada|ses_1|Fix/],
  ] as const)('gets only the text of the level %s', async (level, hidden) => {
    expect((await post('s3cret', level)).body).not.toMatch(hidden);
  });

  it('that answers with an error is named by its origin alone', async () => {
    const delivery = post('s3cret', 'full', 302);
    await expect(delivery).rejects.toThrow(/^POST http:\/\/127\.0\.0\.1:\d+: HTTP 302$/);
  });
});

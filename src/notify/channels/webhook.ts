import { createHmac } from 'node:crypto';
import type { ChannelTarget, TextLevel } from '../../config/notify.ts';
import { jsonOfNotice } from '../notice-words.ts';
import type { Channel, ChannelDeps } from './channel.ts';
import { sendJson } from './send-json.ts';
import { secretOf } from './secret.ts';

/** JSON by POST, signed by the Standard Webhooks specification, whose libraries check the signature and the age. */
export function webhookChannel(
  { url, secret }: Extract<ChannelTarget, { type: 'webhook' }>,
  level: TextLevel,
  { clock, readSecret }: ChannelDeps,
): Channel {
  return {
    label: `webhook at ${new URL(url).origin}`,
    async deliver(notice, _, signal) {
      const body = JSON.stringify(jsonOfNotice(notice, level));
      const seconds = Math.floor(clock.now() / 1_000);
      const key = secret && (await secretOf(secret, readSecret, signal));
      const headers = {
        'webhook-id': `${notice.id}.${notice.event}`,
        'webhook-timestamp': String(seconds),
        ...(key !== undefined && {
          'webhook-signature': signatureOf(`${notice.id}.${notice.event}.${seconds}.${body}`, key),
        }),
      };
      await sendJson({ url, body, headers }, clock, signal);
      return {};
    },
  };
}

const PREFIX = 'whsec_';

/** A secret with the prefix is base64, as the specification writes it; any other is used as it is. */
function signatureOf(signed: string, secret: string): string {
  const key = secret.startsWith(PREFIX) ? Buffer.from(secret.slice(PREFIX.length), 'base64') : Buffer.from(secret);
  return `v1,${createHmac('sha256', key).update(signed).digest('base64')}`;
}

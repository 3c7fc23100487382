import type { ChannelSettings } from '../config/notify.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { ChannelDeps } from './channels/channel.ts';
import { createChannel } from './channels/create-channel.ts';
import { factId, type Notice } from './notice.ts';

/** The result of a test notification. */
export interface Tried {
  readonly name: string;
  readonly label: string;
  /** Why it did not arrive. */
  readonly problem?: string;
  /** See `Receipt`. */
  readonly remark?: string;
}

/** Sends a test notification to each channel, whatever its rules. Never rejects. */
export function tryChannels(
  channels: readonly ChannelSettings[],
  host: string,
  deps: ChannelDeps,
  signal: AbortSignal,
): Promise<readonly Tried[]> {
  return Promise.all(
    channels.map(async (settings) => {
      const channel = createChannel(settings, deps);
      const about = { name: settings.name, label: channel.label };
      try {
        const { remark } = await channel.deliver(testNotice(host, deps.clock), undefined, signal);
        return { ...about, ...(remark !== undefined && { remark }) };
      } catch (error) {
        return { ...about, problem: messageOf(error) };
      }
    }),
  );
}

/** Its id is always the same, so that channels replace the last test. */
function testNotice(host: string, clock: Clock): Notice {
  return { id: factId('test', host), event: 'test', atMs: clock.now(), host };
}

import type { ChannelSettings } from '../config/notify.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { type ChannelDeps, createChannel } from './channels/create-channel.ts';
import { factId, type Notice } from './notice.ts';

/** What came of a test notification. */
export interface Tried {
  readonly name: string;
  readonly label: string;
  /** Why it did not arrive. */
  readonly problem?: string;
  readonly remark?: string;
}

/** Sends one test notification to each channel, whatever its rules are. Never rejects. */
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

/** The same id each time: a channel that can replaces the last one. */
function testNotice(host: string, clock: Clock): Notice {
  return { id: factId('test', host), event: 'test', atMs: clock.now(), host };
}

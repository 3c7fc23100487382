import type { ChannelTarget, TextLevel } from '../../config/notify.ts';
import { singleLine } from '../../base/plain-text.ts';
import { jsonOfNotice } from '../notice-words.ts';
import { type Channel, type ChannelDeps, DeliveryError } from './channel.ts';
import { runBounded } from './run-bounded.ts';

/** Runs a configured program, which gets one line of JSON on its input. */
export function commandChannel(
  { argv }: Extract<ChannelTarget, { type: 'command' }>,
  level: TextLevel,
  { clock }: Pick<ChannelDeps, 'clock'>,
): Channel {
  return {
    label: `command ${singleLine(argv[0], 100)}`,
    async deliver(notice, _, signal) {
      const input = `${JSON.stringify(jsonOfNotice(notice, level))}\n`;
      await runBounded({ argv, input }, clock, signal).catch((error: unknown) => {
        // Not `absent`, so that it is tried again: the program may be installed meanwhile.
        if (error instanceof DeliveryError && error.kind === 'absent') throw new DeliveryError('failed', error.message);
        throw error;
      });
      return {};
    },
  };
}

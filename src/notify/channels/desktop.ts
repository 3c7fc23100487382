import type { TextLevel } from '../../config/notify.ts';
import { isRequest, type Notice } from '../notice.ts';
import { noticeWords } from '../notice-words.ts';
import { type Channel, type ChannelDeps, DeliveryError } from './channel.ts';
import { runBounded } from './run-bounded.ts';

/** A settled request needs no attention for longer. */
const SETTLED_SHOWN_MS = 4_000;

const MISSING = 'there is no notify-send on PATH; install libnotify (on Debian libnotify-bin), then start this again';

/** The desktop of this session, by `notify-send` of libnotify 0.8 and later. */
export function desktopChannel(level: TextLevel, { clock }: Pick<ChannelDeps, 'clock'>): Channel {
  return {
    label: 'desktop',
    async deliver(notice, replaces, signal) {
      const { title, body, link } = noticeWords(notice, level);
      const argv = [
        'notify-send',
        '--app-name=opencode',
        `--urgency=${urgencyOf(notice)}`,
        '--print-id',
        ...(replaces === undefined ? [] : [`--replace-id=${replaces}`]),
        ...(notice.event === 'settled' ? [`--expire-time=${SETTLED_SHOWN_MS}`] : []),
        '--',
        title,
        withoutMarkup([body, link].filter(Boolean).join('\n')),
      ] as const;
      const printed = await runBounded({ argv: [...argv], input: '' }, clock, signal).catch((error: unknown) => {
        if (error instanceof DeliveryError && error.kind === 'absent') throw new DeliveryError('absent', MISSING);
        throw error;
      });
      const id = /^\d{1,10}$/.exec(printed.trim())?.[0];
      return id === undefined ? {} : { replaces: id };
    },
  };
}

function urgencyOf(notice: Notice): string {
  if (isRequest(notice)) return 'critical';
  return notice.event === 'settled' ? 'low' : 'normal';
}

/** Desktops read the body as markup. */
function withoutMarkup(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

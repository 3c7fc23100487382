import type { ChannelTarget, TextLevel } from '../../config/notify.ts';
import { jsonOf } from '../../base/errors.ts';
import type { Notice, NoticeEvent } from '../notice.ts';
import { noticeWords } from '../notice-words.ts';
import type { Channel, ChannelDeps } from './channel.ts';
import { sendJson } from './send-json.ts';
import { secretOf } from './secret.ts';

/** ntfy turns a message above 4096 bytes into an attachment: a phone shows no text, and a server without attachments refuses it. */
const MAX_MESSAGE_BYTES = 3_900;

/** 1 makes no sound, 4 and 5 insist (ntfy's "message priority"). */
const PRIORITIES: Readonly<Partial<Record<NoticeEvent, number>>> = {
  permission: 4,
  question: 4,
  unanswered: 5,
  failed: 4,
  settled: 1,
};
const DEFAULT_PRIORITY = 3;

/** Short codes that ntfy shows as emoji. */
const TAGS: Readonly<Record<NoticeEvent, string>> = {
  permission: 'lock',
  question: 'question',
  unanswered: 'bell',
  done: 'white_check_mark',
  failed: 'x',
  stalled: 'hourglass',
  settled: 'ballot_box_with_check',
  summary: 'clipboard',
  test: 'wave',
};

/** A topic of an ntfy server, which replaces a message by its `sequence_id` (2.16 and later; an older one shows both). */
export function ntfyChannel(
  { url, topic, token }: Extract<ChannelTarget, { type: 'ntfy' }>,
  level: TextLevel,
  { clock, readSecret }: ChannelDeps,
): Channel {
  return {
    label: `ntfy at ${new URL(url).origin}`,
    async deliver(notice, _, signal) {
      const authorization = token && `Bearer ${await secretOf(token, readSecret, signal)}`;
      // JSON to the root, since a post to the topic carries the title in a header, which must be ASCII.
      const answer = await sendJson(
        {
          url: `${url}/`,
          body: JSON.stringify({ topic, ...messageOfNotice(notice, level) }),
          headers: authorization === undefined ? {} : { authorization },
        },
        clock,
        signal,
      );
      return canReplace(answer, notice) ? {} : { remark: 'older than ntfy 2.16: it cannot replace notifications' };
    },
  };
}

function messageOfNotice(notice: Notice, level: TextLevel): object {
  const { title, body, link } = noticeWords(notice, level);
  const { event, id } = notice;
  return {
    sequence_id: id,
    title: body === '' ? '' : title,
    message: withinBytes(body === '' ? title : body, MAX_MESSAGE_BYTES),
    priority: PRIORITIES[event] ?? DEFAULT_PRIORITY,
    tags: [TAGS[event]],
    ...(link !== undefined && { click: link }),
  };
}

/** A server that knows `sequence_id` repeats it in its answer. */
function canReplace(answer: string, { id }: Notice): boolean {
  const said = jsonOf(answer);
  return said instanceof Object && Reflect.get(said, 'sequence_id') === id;
}

/** Shortens a text to at most `max` bytes as JSON. */
function withinBytes(text: string, max: number): string {
  let shown = text;
  while (Buffer.byteLength(JSON.stringify(shown)) > max) shown = tenthShorter(shown);
  return shown;
}

/** A tenth shorter, without splitting a character. */
function tenthShorter(text: string): string {
  const characters = Array.from(text);
  return `${characters.slice(0, Math.floor(characters.length * 0.9) - 1).join('')}…`;
}

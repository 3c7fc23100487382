import type { NotifyEvent, TextLevel } from '../config/notify.ts';
import type { Notice, NoticeEvent } from './notice.ts';

export interface NoticeWords {
  readonly title: string;
  /** Empty if the title says everything. */
  readonly body: string;
  readonly link?: string;
}

/** Titles for the text level `none`: nothing that names a machine, a project or its work. */
const BARE: Readonly<Record<NoticeEvent, string>> = {
  permission: 'An agent waits for a permission',
  question: 'An agent asks a question',
  unanswered: 'An agent still waits for an answer',
  done: 'An agent is done',
  failed: 'An agent failed',
  stalled: 'An agent makes no progress',
  settled: 'Settled: nobody waits here any more',
  summary: 'More happened',
  test: 'Notifications arrive',
};

const HEADINGS: Readonly<Record<Exclude<NoticeEvent, 'summary' | 'test'>, string>> = {
  permission: 'Permission',
  question: 'Question',
  unanswered: 'Still waiting',
  done: 'Done',
  failed: 'Failed',
  stalled: 'Stalled',
  settled: 'Settled',
};

/** A notice as text, with no more detail than the level allows. */
export function noticeWords(notice: Notice, level: TextLevel): NoticeWords {
  const { event, host, directory, session, link, counts } = notice;
  if (event === 'summary') return { title: `${BARE.summary}: ${countsOf(counts)}`, body: level === 'none' ? '' : host };
  if (level === 'none') return { title: BARE[event], body: '' };
  if (event === 'test') return { title: BARE.test, body: `from ${host}`, ...(link && { link }) };
  const place = directory === undefined ? host : `${host} ${directory}`;
  const detail = level === 'full' ? [notice.request?.text, notice.reason] : [];
  const body = [...detail, place].filter((line) => line !== undefined && line !== '').join('\n');
  return { title: `${HEADINGS[event]}: ${session?.title || 'untitled'}`, body, ...(link && { link }) };
}

/** `12 done, 3 failed`. */
function countsOf(counts: Notice['counts'] = {}): string {
  return Object.entries(counts)
    .map(([event, count]) => `${count} ${event as NotifyEvent}`)
    .join(', ');
}

/** A notice as JSON, with no more detail than the level allows. */
export function jsonOfNotice(notice: Notice, level: TextLevel): Readonly<Record<string, unknown>> {
  const { id, event, atMs, host, instance, directory, session, request, reason, link, counts } = notice;
  const { title, body } = noticeWords(notice, level);
  return {
    id,
    event,
    time: new Date(atMs).toISOString(),
    title,
    ...(body !== '' && { body }),
    ...(counts && { counts }),
    ...(level !== 'none' && { host, instance, directory, session, link }),
    ...(request &&
      level !== 'none' && { request: level === 'full' ? request : { id: request.id, kind: request.kind } }),
    ...(level === 'full' && { reason }),
  };
}

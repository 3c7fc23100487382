import { createHash } from 'node:crypto';
import type { NotifyEvent } from '../config/notify.ts';

/**
 * The events that rules name, and three more: `settled` replaces the notice of a request, `summary` counts events beyond the limit,
 * `test` tries a channel.
 */
export type NoticeEvent = NotifyEvent | 'settled' | 'summary' | 'test';

/** One notification. All text is clean and bounded. */
export interface Notice {
  /** The same for all notices of one request or turn, also after a restart. A channel uses it to replace an earlier notice. */
  readonly id: string;
  readonly event: NoticeEvent;
  /** When it was noticed, ms since the epoch. */
  readonly atMs: number;
  /** Name of the machine. */
  readonly host: string;
  readonly instance?: string;
  readonly directory?: string;
  readonly session?: { readonly id: string; readonly title: string };
  readonly request?: { readonly id: string; readonly kind: 'permission' | 'question'; readonly text: string };
  /** Why the turn failed or retries, or how the request was settled. */
  readonly reason?: string;
  /** Opens the request or session on the page. */
  readonly link?: string;
  /** Of a summary: how often each event happened. */
  readonly counts?: Readonly<Partial<Record<NotifyEvent, number>>>;
}

/** 128 bits: two facts never share an id. ntfy takes at most 64 letters, digits, `-` and `_`. */
const ID_CHARS = 22;

export function factId(...parts: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, ID_CHARS);
}

/** Whether a person must act. Such a notice is never dropped for its age, nor counted in a summary. */
export function isRequest({ event }: Pick<Notice, 'event'>): boolean {
  return event === 'permission' || event === 'question' || event === 'unanswered';
}

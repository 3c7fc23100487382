import { createHash } from 'node:crypto';
import type { NotifyEvent } from '../config/notify.ts';

/**
 * What channels say: of the facts that rules name, and that a request is settled (which replaces what was said of it), that more
 * happened than is said one by one, and a test.
 */
export type NoticeEvent = NotifyEvent | 'settled' | 'summary' | 'test';

/** One fact as it is to be said. All text is clean and bounded. */
export interface Notice {
  /** The same for all that is said of one fact, also after a restart: a channel replaces by it what it said before. */
  readonly id: string;
  readonly event: NoticeEvent;
  /** When it was noticed, ms since the epoch. */
  readonly atMs: number;
  /** The machine. */
  readonly host: string;
  readonly instance?: string;
  readonly directory?: string;
  readonly session?: { readonly id: string; readonly title: string };
  readonly request?: { readonly id: string; readonly kind: 'permission' | 'question'; readonly text: string };
  /** Why it failed or retries, or how it was settled. */
  readonly reason?: string;
  /** Opens the very request or session on the page. */
  readonly link?: string;
  /** Of a summary: how often each event happened. */
  readonly counts?: Readonly<Partial<Record<NotifyEvent, number>>>;
}

/** 128 bits: two facts never share an id. ntfy takes at most 64 letters, digits, `-` and `_`. */
const ID_CHARS = 22;

export function factId(...parts: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, ID_CHARS);
}

/** Somebody must act: such a notice is neither dropped nor summarised. */
export function isRequest({ event }: Pick<Notice, 'event'>): boolean {
  return event === 'permission' || event === 'question' || event === 'unanswered';
}

import type { ChannelRules, Hours, NotifyEvent } from '../config/notify.ts';
import { matchesPattern } from '../config/pattern.ts';
import type { Notice } from './notice.ts';

/** Whether a channel says such a thing at all, at some time of the day. */
export function accepts({ events, instances }: ChannelRules, event: NotifyEvent, { instance }: Notice): boolean {
  if (!events.includes(event)) return false;
  return instances.length === 0 || instances.some((pattern) => matchesPattern(pattern, instance ?? ''));
}

const DAY_MINUTES = 1_440;

/** When the hours of a channel begin next, ms since the epoch; `nowMs` within them. By the local time of this machine. */
export function nextHours(hours: Hours | undefined, nowMs: number): number {
  if (hours === undefined) return nowMs;
  const now = new Date(nowMs);
  const minute = now.getHours() * 60 + now.getMinutes();
  const since = (minute - hours.from + DAY_MINUTES) % DAY_MINUTES;
  const length = (hours.to - hours.from + DAY_MINUTES) % DAY_MINUTES;
  if (since < length) return nowMs;
  const start = new Date(nowMs);
  // Local time, so that a day on which the clock is set has its own length.
  start.setHours(Math.floor(hours.from / 60), hours.from % 60, 0, 0);
  if (start.getTime() <= nowMs) start.setDate(start.getDate() + 1);
  return start.getTime();
}

import type { ChannelRules, Hours, NotifyEvent } from '../config/notify.ts';
import { matchesPattern } from '../config/pattern.ts';
import type { Notice } from './notice.ts';

/** Whether a channel's rules accept a notice, hours aside. */
export function accepts({ events, instances }: ChannelRules, event: NotifyEvent, { instance }: Notice): boolean {
  if (!events.includes(event)) return false;
  return instances.length === 0 || instances.some((pattern) => matchesPattern(pattern, instance ?? ''));
}

const DAY_MINUTES = 1_440;

/** When a channel's hours begin next, in ms since the epoch; `nowMs` within them. By this machine's local time. */
export function nextHours(hours: Hours | undefined, nowMs: number): number {
  if (hours === undefined) return nowMs;
  const now = new Date(nowMs);
  const minute = now.getHours() * 60 + now.getMinutes();
  const since = (minute - hours.from + DAY_MINUTES) % DAY_MINUTES;
  const length = (hours.to - hours.from + DAY_MINUTES) % DAY_MINUTES;
  if (since < length) return nowMs;
  const start = new Date(nowMs);
  // In local time, since a day on which the clocks change has 23 or 25 hours.
  start.setHours(Math.floor(hours.from / 60), hours.from % 60, 0, 0);
  if (start.getTime() <= nowMs) start.setDate(start.getDate() + 1);
  return start.getTime();
}

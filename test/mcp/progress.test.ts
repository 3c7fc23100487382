import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { ProgressReporter, progressNotifier } from '../../src/mcp/progress.ts';

type Notification = readonly [progress: number, message: string | undefined];

let notifications: Notification[];
let reporter: ProgressReporter;

beforeEach(() => {
  vi.useFakeTimers();
  notifications = [];
  reporter = new ProgressReporter((progress, message) => {
    notifications.push([progress, message]);
  });
});
afterEach(() => {
  reporter.end();
  vi.useRealTimers();
});

const texts = (): (string | undefined)[] => notifications.map(([, message]) => message);

describe('progress of a turn', () => {
  test('the first text is sent immediately, and text of the next 100 ms in one notification, in order', () => {
    for (const text of ['a', 'b', 'c', 'd']) reporter.add(text);
    expect(notifications).toEqual([[1, 'a']]);
    vi.advanceTimersByTime(100);
    expect(notifications).toEqual([
      [1, 'a'],
      [2, 'bcd'],
    ]);
    vi.advanceTimersByTime(101);
    reporter.add('after a pause');
    expect(notifications.at(-1)).toEqual([3, 'after a pause']);
  });

  test('a fast stream causes at most ten notifications a second, and loses no character', () => {
    const text = Array.from({ length: 1000 }, (_, index) => `${index},`);
    for (const piece of text) {
      reporter.add(piece);
      vi.advanceTimersByTime(1);
    }
    expect(notifications.length).toBeLessThanOrEqual(11);
    reporter.end();
    expect(texts().join('')).toBe(text.join(''));
  });

  test('an escape sequence in two pieces is removed; of an unfinished sequence, only control characters are removed', () => {
    reporter.add('a\u001b');
    vi.advanceTimersByTime(101);
    reporter.add('[31mb\u202e');
    vi.advanceTimersByTime(101);
    reporter.add('c\u001b]0;d');
    reporter.end();
    expect(texts()).toEqual(['a', 'b', 'c', '0;d']);
  });

  test('a notification has at most 10,000 characters, however long the text is', () => {
    reporter.add('x'.repeat(1_000_000));
    expect(notifications[0]?.[1]?.length).toBe(10_000);
  });

  test('after each 10 s without text, a notification without text is sent', () => {
    vi.advanceTimersByTime(9_999);
    expect(notifications).toEqual([]);
    vi.advanceTimersByTime(10_001);
    expect(notifications).toEqual([
      [1, undefined],
      [2, undefined],
    ]);
    vi.advanceTimersByTime(9_000);
    reporter.add('late');
    vi.advanceTimersByTime(9_999);
    expect(notifications.slice(2)).toEqual([[3, 'late']]);
    vi.advanceTimersByTime(1);
    expect(notifications.at(-1)).toEqual([4, undefined]);
  });

  test('end() sends the gathered text once, and nothing is sent after it', () => {
    reporter.add('a');
    reporter.add('b');
    reporter.end();
    reporter.end();
    reporter.add('late');
    vi.advanceTimersByTime(60_000);
    expect(texts()).toEqual(['a', 'b']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('end() without any text sends nothing', () => {
    reporter.add('');
    reporter.end();
    expect(notifications).toEqual([]);
  });

  describe('to a client that does not read', () => {
    let pending: (() => void)[];
    /** Lets the client read the oldest pending notification. */
    const read = async (): Promise<void> => {
      pending.shift()?.();
      await vi.advanceTimersByTimeAsync(100);
    };

    beforeEach(() => {
      pending = [];
      reporter.end();
      reporter = new ProgressReporter((progress, message) => {
        notifications.push([progress, message]);
        return new Promise((resolve) => pending.push(resolve));
      });
    });

    test('one notification is pending, and the next has all later text', async () => {
      reporter.add('a');
      for (let second = 0; second < 100; second += 1) {
        reporter.add(`${second},`);
        vi.advanceTimersByTime(1_000);
      }
      expect(notifications).toEqual([[1, 'a']]);
      await read();
      expect(notifications).toHaveLength(2);
      expect(notifications[1]?.[1]).toMatch(/^0,1,2,.*,98,99,$/);
    });

    test('text that exceeds one notification is cut, and later text follows', async () => {
      reporter.add('a');
      for (let count = 0; count < 10_000; count += 1) reporter.add(`${count},`);
      await read();
      expect(notifications[1]?.[1]).toMatch(/^0,1,2,[\d,]*…$/);
      expect(notifications[1]?.[1]?.length).toBe(10_000);
      await read();
      reporter.add('after');
      expect(notifications[2]).toEqual([3, 'after']);
    });

    test('end() still sends the gathered text', () => {
      reporter.add('a');
      reporter.add('b');
      reporter.end();
      expect(texts()).toEqual(['a', 'b']);
      expect(vi.getTimerCount()).toBe(0);
    });
  });
});

test("progress is sent with the client's token, and not for a request that has ended", async () => {
  const notifications: unknown[] = [];
  let hasEnded = false;
  const notify = progressNotifier(
    'token',
    async (...notification) => void notifications.push(notification),
    () => hasEnded,
  );
  await notify?.(1, 'text');
  hasEnded = true;
  await notify?.(2, 'late text');
  expect(notifications).toEqual([['notifications/progress', { progressToken: 'token', progress: 1, message: 'text' }]]);
});

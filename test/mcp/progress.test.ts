import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { ProgressReporter, progressNotifier } from '../../src/mcp/progress.ts';

type Sent = readonly [progress: number, message: string | undefined];

let sent: Sent[];
let reporter: ProgressReporter;

beforeEach(() => {
  vi.useFakeTimers();
  sent = [];
  reporter = new ProgressReporter((progress, message) => {
    sent.push([progress, message]);
  });
});
afterEach(() => {
  reporter.end();
  vi.useRealTimers();
});

const texts = (): (string | undefined)[] => sent.map(([, message]) => message);

describe('progress of a turn', () => {
  test('the first text is sent immediately; text within 100 ms after it is gathered into one, in order', () => {
    for (const text of ['a', 'b', 'c', 'd']) reporter.add(text);
    expect(sent).toEqual([[1, 'a']]);
    vi.advanceTimersByTime(100);
    expect(sent).toEqual([
      [1, 'a'],
      [2, 'bcd'],
    ]);
    vi.advanceTimersByTime(101);
    reporter.add('after a pause');
    expect(sent.at(-1)).toEqual([3, 'after a pause']);
  });

  test('a fast stream makes at most ten notifications a second, and loses no character', () => {
    const text = Array.from({ length: 1000 }, (_, index) => `${index},`);
    for (const piece of text) {
      reporter.add(piece);
      vi.advanceTimersByTime(1);
    }
    expect(sent.length).toBeLessThanOrEqual(11);
    reporter.end();
    expect(texts().join('')).toBe(text.join(''));
  });

  test('an escape sequence in two pieces is removed as one; an unfinished one is cleaned at the end', () => {
    reporter.add('a\u001b');
    vi.advanceTimersByTime(101);
    reporter.add('[31mb\u202e');
    vi.advanceTimersByTime(101);
    reporter.add('c\u001b]0;d');
    reporter.end();
    expect(texts()).toEqual(['a', 'b', 'c', '0;d']);
  });

  test('one notification is bounded, however long the text is', () => {
    reporter.add('x'.repeat(1_000_000));
    expect(sent[0]?.[1]?.length).toBe(10_000);
  });

  test('after each 10 s without text, a notification without text is sent', () => {
    vi.advanceTimersByTime(9_999);
    expect(sent).toEqual([]);
    vi.advanceTimersByTime(10_001);
    expect(sent).toEqual([
      [1, undefined],
      [2, undefined],
    ]);
    vi.advanceTimersByTime(9_000);
    reporter.add('late');
    vi.advanceTimersByTime(9_999);
    expect(sent.slice(2)).toEqual([[3, 'late']]);
    vi.advanceTimersByTime(1);
    expect(sent.at(-1)).toEqual([4, undefined]);
  });

  test('the end sends the gathered text once; nothing is sent after it', () => {
    reporter.add('a');
    reporter.add('b');
    reporter.end();
    reporter.end();
    reporter.add('late');
    vi.advanceTimersByTime(60_000);
    expect(texts()).toEqual(['a', 'b']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('without any text, the end sends nothing', () => {
    reporter.add('');
    reporter.end();
    expect(sent).toEqual([]);
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
        sent.push([progress, message]);
        return new Promise((resolve) => pending.push(resolve));
      });
    });

    test('one notification waits, and the next has all text since then', async () => {
      reporter.add('a');
      for (let second = 0; second < 100; second += 1) {
        reporter.add(`${second},`);
        vi.advanceTimersByTime(1_000);
      }
      expect(sent).toEqual([[1, 'a']]);
      await read();
      expect(sent).toHaveLength(2);
      expect(sent[1]?.[1]).toMatch(/^0,1,2,.*,98,99,$/);
    });

    test('gathers no more than one notification holds; later text follows', async () => {
      reporter.add('a');
      for (let count = 0; count < 10_000; count += 1) reporter.add(`${count},`);
      await read();
      expect(sent[1]?.[1]).toMatch(/^0,1,2,[\d,]*…$/);
      expect(sent[1]?.[1]?.length).toBe(10_000);
      await read();
      reporter.add('after');
      expect(sent[2]).toEqual([3, 'after']);
    });

    test('the end still sends the gathered text', () => {
      reporter.add('a');
      reporter.add('b');
      reporter.end();
      expect(texts()).toEqual(['a', 'b']);
      expect(vi.getTimerCount()).toBe(0);
    });
  });
});

test('progress is sent under the client’s token, and not for a request that is over', async () => {
  const notifications: unknown[] = [];
  let isOver = false;
  const notify = progressNotifier(
    'token',
    async (...notification) => void notifications.push(notification),
    () => isOver,
  );
  await notify?.(1, 'text');
  isOver = true;
  await notify?.(2, 'late text');
  expect(notifications).toEqual([['notifications/progress', { progressToken: 'token', progress: 1, message: 'text' }]]);
});

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

describe('progress of a turn', () => {
  test('the first text goes out at once', () => {
    reporter.add('Hello');
    expect(sent).toEqual([[1, 'Hello']]);
  });

  test('text within 100 ms after a notification is gathered into one, in order', () => {
    reporter.add('a');
    for (const text of ['b', 'c', 'd']) reporter.add(text);
    expect(sent).toEqual([[1, 'a']]);
    vi.advanceTimersByTime(100);
    expect(sent).toEqual([
      [1, 'a'],
      [2, 'bcd'],
    ]);
  });

  test('a fast stream makes at most ten notifications a second, and loses no character', () => {
    const text = Array.from({ length: 1000 }, (_, index) => `${index},`);
    for (const piece of text) {
      reporter.add(piece);
      vi.advanceTimersByTime(1);
    }
    expect(sent.length).toBeLessThanOrEqual(11);
    reporter.end();
    expect(sent.map(([, message]) => message).join('')).toBe(text.join(''));
  });

  test('an escape sequence in two pieces is removed as one; an unfinished one is cleaned at the end', () => {
    reporter.add('a\u001b');
    vi.advanceTimersByTime(101);
    reporter.add('[31mb\u202e');
    vi.advanceTimersByTime(101);
    reporter.add('c\u001b]0;d');
    reporter.end();
    expect(sent.map(([, message]) => message)).toEqual(['a', 'b', 'c', '0;d']);
  });

  test('one notification is bounded, however long the text is', () => {
    reporter.add('x'.repeat(1_000_000));
    expect(sent[0]?.[1]?.length).toBe(10_000);
  });

  test('after a pause, the next text goes out at once again', () => {
    reporter.add('a');
    vi.advanceTimersByTime(101);
    reporter.add('b');
    expect(sent.map(([, message]) => message)).toEqual(['a', 'b']);
  });

  test('in silence, a notification without text goes out every 10 s', () => {
    vi.advanceTimersByTime(9_999);
    expect(sent).toEqual([]);
    vi.advanceTimersByTime(20_001);
    expect(sent).toEqual([
      [1, undefined],
      [2, undefined],
      [3, undefined],
    ]);
  });

  test('the 10 s count from the last text', () => {
    vi.advanceTimersByTime(9_000);
    reporter.add('late');
    vi.advanceTimersByTime(9_999);
    expect(sent).toEqual([[1, 'late']]);
    vi.advanceTimersByTime(1);
    expect(sent.at(-1)).toEqual([2, undefined]);
  });

  test('each notification has a higher number than the one before', () => {
    for (let second = 0; second < 30; second++) {
      if (second % 7 === 0) reporter.add(`at ${second}`);
      vi.advanceTimersByTime(1_000);
    }
    reporter.end();
    expect(sent.map(([progress]) => progress)).toEqual(sent.map((_, index) => index + 1));
  });

  test('the end sends the gathered text once, and leaves no timer', () => {
    reporter.add('a');
    reporter.add('b');
    reporter.end();
    reporter.end();
    expect(sent.map(([, message]) => message)).toEqual(['a', 'b']);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('nothing is sent after the end: neither heartbeats nor late text', () => {
    reporter.add('a');
    reporter.end();
    reporter.add('late');
    vi.advanceTimersByTime(60_000);
    expect(sent).toEqual([[1, 'a']]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('without any text, the end sends nothing', () => {
    reporter.add('');
    reporter.end();
    expect(sent).toEqual([]);
  });

  describe('to a client that does not read', () => {
    /** Lets the client read the oldest pending notification. */
    let read: (() => void)[];
    const reads = async (): Promise<void> => {
      read.shift()?.();
      await vi.advanceTimersByTimeAsync(100);
    };

    beforeEach(() => {
      read = [];
      reporter.end();
      reporter = new ProgressReporter((progress, message) => {
        sent.push([progress, message]);
        return new Promise((resolve) => read.push(resolve));
      });
    });

    test('one notification waits, no heartbeat joins it, and the text comes in one piece once it is read', async () => {
      reporter.add('a');
      for (let second = 0; second < 100; second += 1) {
        reporter.add(`${second},`);
        vi.advanceTimersByTime(1_000);
      }
      expect(sent).toEqual([[1, 'a']]);
      await reads();
      expect(sent).toHaveLength(2);
      expect(sent[1]?.[1]).toMatch(/^0,1,2,.*,98,99,$/);
    });

    test('gathers no more than one notification holds; later text follows', async () => {
      reporter.add('a');
      for (let count = 0; count < 10_000; count += 1) reporter.add(`${count},`);
      await reads();
      expect(sent[1]?.[1]).toMatch(/^0,1,2,[\d,]*…$/);
      expect(sent[1]?.[1]?.length).toBe(10_000);
      await reads();
      reporter.add('after');
      expect(sent[2]).toEqual([3, 'after']);
    });

    test('the end still sends the gathered text', () => {
      reporter.add('a');
      reporter.add('b');
      reporter.end();
      expect(sent.map(([, message]) => message)).toEqual(['a', 'b']);
      expect(vi.getTimerCount()).toBe(0);
    });
  });
});

test('progress goes out under the client’s token, and not for a request that is over', async () => {
  const told: unknown[] = [];
  let isOver = false;
  const notify = progressNotifier(
    'token',
    async (...notification) => void told.push(notification),
    () => isOver,
  );
  await notify?.(1, 'text');
  isOver = true;
  await notify?.(2, 'late text');
  expect(told).toEqual([['notifications/progress', { progressToken: 'token', progress: 1, message: 'text' }]]);
});

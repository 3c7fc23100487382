import { describe, expect, it } from 'vitest';
import { ChangeNotifier } from '../../src/base/change-notifier.ts';

const HINT = { done: false, value: undefined };
const END = { done: true, value: undefined };

describe('ChangeNotifier', () => {
  it('merges unread notifications into one', async () => {
    const notifier = new ChangeNotifier();
    for (let count = 0; count < 1000; count += 1) notifier.notify();
    expect(await notifier.next()).toEqual(HINT);
    const second = notifier.next();
    notifier.end();
    expect(await second).toEqual(END);
  });

  it('wakes a waiting reader', async () => {
    const notifier = new ChangeNotifier();
    const waiting = notifier.next();
    notifier.notify();
    expect(await waiting).toEqual(HINT);
  });

  it('yields nothing after its end, not even an earlier notification', async () => {
    const notifier = new ChangeNotifier();
    notifier.notify();
    notifier.end();
    notifier.notify();
    expect(await notifier.next()).toEqual(END);
  });

  it('aborts `ended` once, even if it is ended twice', async () => {
    const notifier = new ChangeNotifier();
    let ends = 0;
    notifier.ended.addEventListener('abort', () => (ends += 1));
    notifier.notify();
    for await (const hint of notifier) {
      expect(hint).toBeUndefined();
      break;
    }
    notifier.end();
    expect(ends).toBe(1);
  });

  it('ends every waiting reader', async () => {
    const notifier = new ChangeNotifier();
    const readers = [notifier.next(), notifier.next()];
    await notifier.return();
    expect(await Promise.all(readers)).toEqual([END, END]);
  });
});

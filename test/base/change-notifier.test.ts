import { describe, expect, it } from 'vitest';
import { Pulse } from '../../src/base/change-notifier.ts';

const HINT = { done: false, value: undefined };
const END = { done: true, value: undefined };

describe('Pulse', () => {
  it('keeps one notification for a reader that is late, however many came', async () => {
    const pulse = new Pulse();
    for (let count = 0; count < 1000; count += 1) pulse.notify();
    expect(await pulse.next()).toEqual(HINT);
    const second = pulse.next();
    pulse.end();
    expect(await second).toEqual(END);
  });

  it('wakes a waiting reader', async () => {
    const pulse = new Pulse();
    const waiting = pulse.next();
    pulse.notify();
    expect(await waiting).toEqual(HINT);
  });

  it('gives nothing after its end, not even what came before', async () => {
    const pulse = new Pulse();
    pulse.notify();
    pulse.end();
    pulse.notify();
    expect(await pulse.next()).toEqual(END);
  });

  it('says once that it ended, whoever ends it', async () => {
    const pulse = new Pulse();
    let ends = 0;
    pulse.onEnd = () => (ends += 1);
    pulse.notify();
    for await (const hint of pulse) {
      expect(hint).toBeUndefined();
      break;
    }
    pulse.end();
    expect(ends).toBe(1);
  });

  it('ends every reader that waits', async () => {
    const pulse = new Pulse();
    const readers = [pulse.next(), pulse.next()];
    await pulse.return();
    expect(await Promise.all(readers)).toEqual([END, END]);
  });
});

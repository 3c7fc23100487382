import { describe, expect, test } from 'vitest';

import type { CallLimit } from '../../src/turns/call-limit.ts';
import { type Holder, SessionLock } from '../../src/turns/session-lock.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { deferred } from '../rig/wait.ts';

const clock = new ManualClock();
const lock = new SessionLock(clock);

function limit(signal = new AbortController().signal, ms = 60_000): CallLimit {
  return { signal, deadlineMs: clock.monotonic() + ms };
}

/** `held` lists the callers in the order in which they acquired `key`; `release` releases it for one of them. */
function queue(key: string) {
  const held: string[] = [];
  const releases = new Map<string, () => void>();
  const join = (name: string, callLimit = limit()): Promise<string> =>
    lock.acquire(key, callLimit).then(
      (release) => {
        held.push(name);
        releases.set(name, release);
        return name;
      },
      (error: Error) => `${name}: ${error.message}`,
    );
  return { held, join, release: (name: string): void => releases.get(name)?.() };
}

describe('a caller that waits for a session', () => {
  test('leaves when its call is cancelled, without freeing the session', async () => {
    const { held, join, release } = queue('cancelled');
    const [middle, end] = [new AbortController(), new AbortController()];
    void join('first');
    const second = join('second', limit(middle.signal));
    const last = join('last', limit(end.signal));
    await settle();
    middle.abort();
    expect(await second).toBe('second: the call was cancelled');
    await settle();
    expect(held).toEqual(['first']);
    end.abort();
    await last;
    void join('next');
    await settle();
    expect(held).toEqual(['first']);
    release('first');
    await settle();
    expect(held).toEqual(['first', 'next']);
  });

  test('leaves at its deadline even if the holder never releases', async () => {
    const { held, join } = queue('expired');
    void join('first');
    const waiting = [1_000, 2_000, 3_000].map((ms) => join(String(ms), limit(undefined, ms)));
    await clock.advance(2_000);
    expect(await Promise.all(waiting.slice(0, 2))).toEqual(
      ['1000', '2000'].map((name) => `${name}: the time for this call ran out`),
    );
    expect([held, clock.due()]).toEqual([['first'], 1]);
  });

  test('does not get the session if its call is cancelled at the moment of the release', async () => {
    const { held, join, release } = queue('same moment');
    const caller = new AbortController();
    await join('first');
    const second = join('second', limit(caller.signal));
    await settle();
    release('first');
    caller.abort();
    expect(await second).toBe('second: the call was cancelled');
    await join('third');
    expect(held).toEqual(['first', 'third']);
  });

  test('does not get the session once its call has ended, and leaves no timer behind if it gets it in time', async () => {
    const { held, join, release } = queue('over');
    expect(await join('cancelled', limit(AbortSignal.abort()))).toBe('cancelled: the call was cancelled');
    expect(await join('late', limit(undefined, 0))).toBe('late: the time for this call ran out');
    const before = clock.due();
    await join('in time');
    release('in time');
    await join('next');
    expect([held, clock.due()]).toEqual([['in time', 'next'], before]);
  });
});

describe('a session held at a place', () => {
  const holderAt = (place: string, lost: Promise<void> = new Promise(() => {})): Holder => ({
    place,
    whenLost: () => lost,
  });

  test('that is unreachable goes to callers at other places, in order, and to none at the same place', async () => {
    const got: string[] = [];
    const join = (name: string, holder: Holder): void => {
      void lock.acquire('copied', limit(), holder).then(() => got.push(name));
    };
    const lost = deferred<void>();
    join('hung', holderAt('one', lost.promise));
    join('behind it', holderAt('one', lost.promise));
    join('healthy', holderAt('two'));
    join('healthy too', holderAt('two'));
    await settle();
    expect(got).toEqual(['hung']);
    lost.resolve();
    await settle();
    expect(got).toEqual(['hung', 'healthy']);
  });

  test('that is reachable keeps other callers waiting, and is probed only while they wait', async () => {
    const signals: AbortSignal[] = [];
    const whenLost = (signal: AbortSignal): Promise<void> => {
      signals.push(signal);
      return new Promise(() => {});
    };
    const release = await lock.acquire('shared', limit(), { place: 'one', whenLost });
    let isHeld = false;
    void lock.acquire('shared', limit(), holderAt('two')).then(() => (isHeld = true));
    await settle();
    expect(isHeld).toBe(false);
    release();
    await settle();
    expect([isHeld, signals.map(({ aborted }) => aborted)]).toEqual([true, [true]]);
  });
});

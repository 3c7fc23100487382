import { describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';

describe('a sleep', () => {
  test.each([Number.POSITIVE_INFINITY, 2 ** 31, 1e12])('of %d ms does not end at once', async (ms) => {
    const end = new AbortController();
    const long = systemClock.sleep(ms, end.signal).then(() => 'the long one');
    const first = await Promise.race([long, systemClock.sleep(20).then(() => 'the short one')]);
    expect(first).toBe('the short one');
    end.abort();
    await long;
  });
});

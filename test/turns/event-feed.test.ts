import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import type { EventStream, ServerEvent } from '../../src/opencode/events.ts';
import { EventFeed, type FeedItem, type FeedLimits } from '../../src/turns/event-feed.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { deferred } from '../rig/wait.ts';

const LIMITS: FeedLimits = { events: 100, chars: 10_000 };

/** A stream with `count` events ready to read; then it stays silent. */
class ReadyStream implements EventStream {
  /** Number of events read. */
  read = 0;
  readonly #count: number;
  readonly #chars: number;
  readonly #end = deferred<void>();
  readonly close = this.#end.resolve;

  constructor(count: number, chars: number) {
    this.#count = count;
    this.#chars = chars;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ServerEvent, void, undefined> {
    while (this.read < this.#count) {
      this.read += 1;
      yield { type: 'message.part.delta', properties: { index: this.read - 1 }, chars: this.#chars };
    }
    await this.#end.promise;
  }
}

/** Takes all items, but only after the feed has read the whole stream. */
async function takeAfterReading(stream: ReadyStream, count: number): Promise<readonly FeedItem[]> {
  const feed = await EventFeed.open(() => Promise.resolve(stream), leapingClock(), LIMITS);
  while (stream.read < count) await nextTurn();
  await nextTurn();
  const items: FeedItem[] = [];
  for (let item = await feed.take(0); item !== undefined; item = await feed.take(0)) items.push(item);
  feed.close();
  return items;
}

const indexOf = (item: FeedItem | undefined): unknown =>
  item?.kind === 'event' ? item.event.properties['index'] : item?.kind;

describe('a feed whose follower is slow', () => {
  test.each([
    ['many small events', 100_000, 1],
    ['events of some size', 1_000, 3_000],
    ['events larger than the limit', 10, 50_000],
  ])('reads all of %s, keeps no more than the limits, and marks a gap for the rest', async (_, count, chars) => {
    const items = await takeAfterReading(new ReadyStream(count, chars), count);
    expect(items[0]).toEqual({ kind: 'gap' });
    const kept = items.slice(1);
    expect(kept.length).toBeLessThanOrEqual(LIMITS.events);
    expect(kept.length * chars).toBeLessThanOrEqual(LIMITS.chars);
    // The newest events are kept, without a gap among them.
    expect(kept.map(indexOf)).toEqual(kept.map((__, index) => count - kept.length + index));
  });

  test('loses nothing up to the limits', async () => {
    const items = await takeAfterReading(new ReadyStream(LIMITS.events, LIMITS.chars / LIMITS.events), LIMITS.events);
    expect(items.map(indexOf)).toEqual(Array.from({ length: LIMITS.events }, (_, index) => index));
  });
});

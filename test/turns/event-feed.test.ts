import { setImmediate as nextTurn } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import type { EventStream, ServerEvent } from '../../src/opencode/events.ts';
import { EventFeed, type FeedItem, type FeedLimits } from '../../src/turns/event-feed.ts';
import { leapingClock } from '../rig/leaping-clock.ts';

const LIMITS: FeedLimits = { events: 100, chars: 10_000 };

/** A stream that has already delivered `events`, and stays silent. */
class Said implements EventStream {
  /** Number of events read. */
  read = 0;
  readonly #events: readonly ServerEvent[];
  #end: () => void = () => {};
  readonly #ended = new Promise<void>((resolve) => (this.#end = resolve));

  constructor(count: number, chars: number) {
    this.#events = Array.from({ length: count }, (_, index) => ({
      type: 'message.part.delta',
      properties: { index },
      chars,
    }));
  }

  close(): void {
    this.#end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ServerEvent, void, undefined> {
    for (const event of this.#events) {
      this.read += 1;
      yield event;
    }
    await this.#ended;
  }
}

/** The items of a follower that begins to take only after everything was read. */
async function takenLate(stream: Said, count: number): Promise<readonly FeedItem[]> {
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
    ['events that are larger than all that is kept', 10, 50_000],
  ])('%s: all is read, no more than the limits is kept, and a gap stands for the rest', async (_, count, chars) => {
    const items = await takenLate(new Said(count, chars), count);
    expect(items[0]).toEqual({ kind: 'gap' });
    const kept = items.slice(1);
    expect(kept.length).toBeLessThanOrEqual(LIMITS.events);
    expect(kept.length * chars).toBeLessThanOrEqual(LIMITS.chars);
    // The newest events are kept, without a gap among them.
    expect(kept.map(indexOf)).toEqual(kept.map((__, index) => count - kept.length + index));
  });

  test('up to the limits nothing is lost', async () => {
    const items = await takenLate(new Said(LIMITS.events, LIMITS.chars / LIMITS.events), LIMITS.events);
    expect(items.map(indexOf)).toEqual(Array.from({ length: LIMITS.events }, (_, index) => index));
  });
});

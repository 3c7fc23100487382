import { expect, test } from 'vitest';

import type { PageQuery } from '../../src/opencode/api.ts';
import { pagesBack } from '../../src/opencode/pages.ts';

/** Reads ten messages from a server whose pages contain at most `serverLimit` messages. */
async function read(serverLimit: number, options: Parameters<typeof pagesBack>[1]) {
  const messages = Array.from({ length: 10 }, (_, index) => index);
  const limits: number[] = [];
  const pages = pagesBack(({ limit, before = '10' }: PageQuery) => {
    limits.push(limit);
    const start = Math.max(0, Number(before) - Math.min(limit, serverLimit));
    const page = messages.slice(start, Number(before));
    return Promise.resolve({ messages: page, ...(start > 0 && { olderCursor: String(start) }) });
  }, options);
  const found: number[][] = [];
  for await (const page of pages) found.unshift([...page.messages]);
  return { limits, messages: found.flat() };
}

test.each([
  ['in pages of the wanted size', 10, { size: 4, most: 9 }, [4, 4, 4], 10],
  ['in larger pages after a small first one', 10, { size: 4, most: 9, firstSize: 1 }, [1, 2, 4, 4], 10],
  ['in smaller pages if the server sends fewer messages', 2, { size: 8, most: 9 }, [8, 2, 4, 2, 4], 10],
  ['until a page of one message is empty too', 0, { size: 4, most: 2 }, [4, 1], 0],
  ['in no more pages than the limit', 10, { size: 2, most: 3 }, [2, 2, 2], 6],
])('messages are read %s', async (_, serverLimit, options, limits, count) => {
  expect(await read(serverLimit, options)).toEqual({
    limits,
    messages: Array.from({ length: count }, (__, index) => 10 - count + index),
  });
});

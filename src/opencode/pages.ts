import type { Page, PageQuery } from './api.ts';

/**
 * The pages of a session's messages, the newest first, `most` at most. A page of large messages comes back smaller than requested; the
 * next request asks for no more than that.
 */
export async function* pagesBack<M>(
  read: (query: PageQuery) => Promise<Page<M>>,
  { size, most, firstSize = size }: { readonly size: number; readonly most: number; readonly firstSize?: number },
): AsyncGenerator<Page<M>, void, undefined> {
  let before: string | undefined;
  let limit = firstSize;
  for (let count = 0; count < most; count += 1) {
    const page = await read({ limit, before });
    yield page;
    before = page.olderCursor;
    if (before === undefined) return;
    const { length } = page.messages;
    limit = length < limit ? Math.max(1, length) : Math.min(size, 2 * limit);
  }
}

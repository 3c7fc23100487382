import type { OpencodeApi } from '../opencode/api.ts';
import type { Message } from '../opencode/schema.ts';

const PAGE = 50;
/** 20 pages of 50: more messages in one turn than that are left unread, oldest first. */
const MAX_PAGES = 20;

/** A session's messages from `messageId` on, oldest first; of a very long turn the newest part. */
export async function messagesOfTurn(
  api: OpencodeApi,
  sessionId: string,
  messageId: string,
): Promise<readonly Message[]> {
  let messages: readonly Message[] = [];
  let before: string | undefined;
  for (let page = 0; page < MAX_PAGES; page++) {
    const next = await api.messages(sessionId, { limit: PAGE, ...(before === undefined ? {} : { before }) });
    messages = [...next.messages, ...messages];
    const first = messages.findIndex(({ info }) => info.id === messageId);
    if (first !== -1) return messages.slice(first);
    before = next.olderCursor;
    if (before === undefined) break;
  }
  return messages;
}

import { createOpencodeClient } from '@opencode-ai/sdk/v2/client';

import { guardedFetch, isNotFound, parse, succeed } from './api.ts';
import { type Session, sessionSchema } from './schema.ts';
import type { Connection } from './transport.ts';

/** Calls that change sessions as a whole. Bounded and checked as those of `OpencodeApi`; what was sent is not cut, so that its answer is known. */
export interface SessionApi {
  /** A copy of what was said before `beforeMessageId`, or of all. An id that the session does not have copies all. */
  fork(sessionId: string, beforeMessageId?: string): Promise<Session>;
  rename(sessionId: string, title: string): Promise<Session>;
  /**
   * With its sub-agents' sessions. False where there was none. What runs in one goes on without a store: 1.18.33 then asks
   * the model again and again, and shows it as retrying, until it is aborted.
   */
  remove(sessionId: string): Promise<boolean>;
}

export function createSessionApi(connection: Connection): SessionApi {
  const client = createOpencodeClient({
    baseUrl: connection.endpoint.url,
    fetch: guardedFetch(connection, undefined),
    parseAs: 'text',
  });
  return {
    async fork(sessionId, beforeMessageId) {
      const result = await client.session.fork({
        sessionID: sessionId,
        ...(beforeMessageId === undefined ? {} : { messageID: beforeMessageId }),
      });
      return parse(sessionSchema, result, 'POST /session/:id/fork');
    },
    async rename(sessionId, title) {
      return parse(sessionSchema, await client.session.update({ sessionID: sessionId, title }), 'PATCH /session/:id');
    },
    async remove(sessionId) {
      const result = await client.session.delete({ sessionID: sessionId });
      if (isNotFound(result)) return false;
      succeed(result, 'DELETE /session/:id');
      return true;
    },
  };
}

import { createOpencodeClient } from '@opencode-ai/sdk/v2/client';
import * as z from 'zod';

import { guardedFetch, isNotFound, olderCursorOf, parse } from './api.ts';
import {
  type ChangedMessage,
  changedMessageSchema,
  type FileContent,
  fileContentSchema,
  type FileNode,
  fileNodeSchema,
  type TextMatch,
  textMatchSchema,
} from './inspect-schema.ts';
import type { Connection } from './transport.ts';

export interface ChangedPage {
  /** Oldest first. */
  readonly messages: readonly ChangedMessage[];
  readonly olderCursor?: string;
}

/**
 * Calls that look at an instance's files and at what its sessions changed. Bounded and checked as those of `OpencodeApi`;
 * what is said there of `directory` holds here too.
 *
 * Paths are relative to `directory`. opencode (1.18.10 and 1.18.33) answers 500 without a reason to a path that leads out of
 * it, by `..`, as an absolute path or through a symbolic link, follows links that stay inside, and lists no links.
 */
export interface InspectApi {
  /** One folder, not what lies below; 500 where there is none. */
  listFiles(directory: string, path: string): Promise<readonly FileNode[]>;
  /** A file that is not there is an empty text; a folder, or a text that is not UTF-8, is a 500. */
  readFile(directory: string, path: string): Promise<FileContent>;
  /**
   * At most the first 10 lines that fit a regular expression of ripgrep's; ignored files are left out. 500 where the
   * pattern is none, a line found is longer than 64 KB, or the machine has no ripgrep and cannot download it.
   */
  findText(directory: string, pattern: string): Promise<readonly TextMatch[]>;
  /** Files whose path is like `query`, best first. `limit` is 200 at most. */
  findFiles(directory: string, query: string, limit: number): Promise<readonly string[]>;
  changedMessages(
    sessionId: string,
    query: { readonly limit: number; readonly before?: string | undefined },
  ): Promise<ChangedPage>;
  /** Undefined where there is none with this id. */
  changedMessage(sessionId: string, messageId: string): Promise<ChangedMessage | undefined>;
}

/** A search through a large project takes longer than other calls; shorter than the least patient client waits. */
const SEARCH_TIMEOUT_MS = 30_000;

export function createInspectApi(connection: Connection, signal?: AbortSignal): InspectApi {
  const client = createOpencodeClient({
    baseUrl: connection.endpoint.url,
    fetch: guardedFetch(connection, signal, SEARCH_TIMEOUT_MS),
    parseAs: 'text',
  });
  return {
    async listFiles(directory, path) {
      return parse(z.array(fileNodeSchema), await client.file.list({ directory, path }), 'GET /file');
    },
    async readFile(directory, path) {
      return parse(fileContentSchema, await client.file.read({ directory, path }), 'GET /file/content');
    },
    async findText(directory, pattern) {
      return parse(z.array(textMatchSchema), await client.find.text({ directory, pattern }), 'GET /find');
    },
    async findFiles(directory, query, limit) {
      const result = await client.find.files({ directory, query, limit, type: 'file' });
      return parse(z.array(z.string()), result, 'GET /find/file');
    },
    // `GET /session/:id/diff` gives the same for one message, and for a whole session always nothing (1.18.10 and 1.18.33).
    async changedMessages(sessionId, { limit, before }) {
      const result = await client.session.messages({
        sessionID: sessionId,
        limit,
        ...(before === undefined ? {} : { before }),
      });
      const messages = parse(z.array(changedMessageSchema), result, 'GET /session/:id/message');
      return { messages, ...olderCursorOf(result, 'GET /session/:id/message') };
    },
    async changedMessage(sessionId, messageId) {
      const result = await client.session.message({ sessionID: sessionId, messageID: messageId });
      return isNotFound(result) ? undefined : parse(changedMessageSchema, result, 'GET /session/:id/message/:id');
    },
  };
}

import * as z from 'zod';

import { messageId } from './schema.ts';

/**
 * What this program uses of opencode's answers about files and changes. Unknown fields are dropped. Shapes as of opencode
 * 1.18.10 to 1.18.33.
 */

export const fileNodeSchema = z.object({
  name: z.string(),
  /** From the directory; a folder's ends in a slash. */
  path: z.string(),
  type: z.enum(['file', 'directory']),
  /** By .gitignore and the like. */
  ignored: z.boolean().default(false),
});
export type FileNode = z.infer<typeof fileNodeSchema>;

export const fileContentSchema = z.object({
  type: z.enum(['text', 'binary']),
  /** Of a text without the white space at its ends; base64 of anything else. */
  content: z.string(),
  mimeType: z.string().optional(),
});
export type FileContent = z.infer<typeof fileContentSchema>;

export const textMatchSchema = z.object({
  path: z.object({ text: z.string() }),
  lines: z.object({ text: z.string() }),
  line_number: z.number(),
});
export type TextMatch = z.infer<typeof textMatchSchema>;

const fileDiffSchema = z.object({
  file: z.string().optional(),
  /** Unified diff; empty for what is not text. */
  patch: z.string().default(''),
  additions: z.number(),
  deletions: z.number(),
  status: z.enum(['added', 'deleted', 'modified']).optional(),
});
export type FileDiff = z.infer<typeof fileDiffSchema>;

/** A message with what opencode says that its turn changed; it stands on the person's message, once the turn has ended. */
export const changedMessageSchema = z.object({
  info: z.object({
    id: messageId,
    role: z.string(),
    parentID: messageId.optional(),
    // Of an assistant's it is true, where it sums up what was said before.
    summary: z.union([z.boolean(), z.object({ diffs: z.array(fileDiffSchema).default([]) })]).optional(),
  }),
});
export type ChangedMessage = z.infer<typeof changedMessageSchema>;

import * as z from 'zod';

import { messageId } from './schema.ts';

/** opencode's answers about files and changes (1.18.10 to 1.18.33). Fields that are not used are dropped. */

export const fileNodeSchema = z.object({
  name: z.string(),
  /** Relative to the directory; a folder's ends in a slash. */
  path: z.string(),
  type: z.enum(['file', 'directory']),
  /** By .gitignore and the like. */
  ignored: z.boolean().default(false),
});
export type FileNode = z.infer<typeof fileNodeSchema>;

export const fileContentSchema = z.object({
  type: z.enum(['text', 'binary']),
  /** Trimmed text, or base64 of anything else. */
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
  /** Unified diff; empty for binary files. */
  patch: z.string().default(''),
  additions: z.number(),
  deletions: z.number(),
  status: z.enum(['added', 'deleted', 'modified']).optional(),
});
export type FileDiff = z.infer<typeof fileDiffSchema>;

/** A message with the changes of its turn, which are on the user's message once the turn has ended. */
export const changedMessageSchema = z.object({
  info: z.object({
    id: messageId,
    role: z.string(),
    parentID: messageId.optional(),
    // True for an assistant's message that sums up earlier ones.
    summary: z.union([z.boolean(), z.object({ diffs: z.array(fileDiffSchema).default([]) })]).optional(),
  }),
});
export type ChangedMessage = z.infer<typeof changedMessageSchema>;

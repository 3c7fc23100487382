import * as z from 'zod';

/** The structured results of the operations on files and changes; see `shapes.ts`. */

export const fileList = z.object({
  instance: z.string(),
  directory: z.string(),
  path: z.string(),
  /** Folders end in a slash. */
  entries: z.array(z.string()),
  ignored: z.array(z.string()).optional(),
  total: z.number(),
  next_offset: z.number().optional(),
});
export type FileList = z.infer<typeof fileList>;

export const fileText = z.object({
  instance: z.string(),
  path: z.string(),
  /** The first line shown, from 1. */
  line: z.number().optional(),
  lines: z.number().optional(),
  text: z.string().optional(),
  next_line: z.number().optional(),
  binary: z.string().optional(),
});
export type FileText = z.infer<typeof fileText>;

export const searchResult = z.object({
  instance: z.string(),
  directory: z.string(),
  matches: z.array(z.object({ path: z.string(), line: z.number().optional(), text: z.string().optional() })),
  more: z.boolean(),
});
export type SearchResult = z.infer<typeof searchResult>;

export const changes = z.object({
  instance: z.string(),
  session: z.object({ id: z.string(), title: z.string() }),
  message_id: z.string().optional(),
  files: z.array(z.object({ file: z.string(), status: z.string(), additions: z.number(), deletions: z.number() })),
  total: z.number(),
  /** Messages whose turns changed something, oldest first. */
  messages: z.array(z.string()).optional(),
  note: z.string().optional(),
  patch: z.string(),
  cut: z.object({ next_offset: z.number(), total: z.number() }).optional(),
});
export type Changes = z.infer<typeof changes>;

export const deletedSession = z.object({
  instance: z.string(),
  session: z.object({ id: z.string(), title: z.string() }),
  deleted: z.boolean(),
});
export type DeletedSession = z.infer<typeof deletedSession>;

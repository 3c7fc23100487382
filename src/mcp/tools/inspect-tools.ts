import * as z from 'zod';

import * as shapes from '../../operations/inspect/inspect-shapes.ts';
import { instance, READS, sessionId, type Tool, tool } from './tool.ts';

/** With a session, paths are relative to its directory instead of the instance's. */
const where = { instance, session_id: sessionId.optional() };
const path = z.string();

/** Tools that read files and changes on the instance's machine. */
export const INSPECT_TOOLS: readonly Tool[] = [
  tool({
    name: 'get_diff',
    toolset: 'inspect',
    description: 'Show what a session (default: the latest) changed, as a whole or in the turn of message_id.',
    annotations: READS,
    input: {
      ...where,
      message_id: z.string().optional(),
      path: path.optional(),
      offset: z.int().min(0).default(0),
    },
    output: shapes.changes,
    operation: async () => (await import('../../operations/inspect/changes.ts')).getDiff,
  }),
  tool({
    name: 'list_files',
    toolset: 'inspect',
    description: "List a folder of an instance's directory.",
    annotations: READS,
    input: { ...where, path: path.default(''), offset: z.int().min(0).default(0) },
    output: shapes.fileList,
    operation: async () => (await import('../../operations/inspect/files.ts')).listFiles,
  }),
  tool({
    name: 'read_file',
    toolset: 'inspect',
    description: "Read a text file on the instance's machine, starting at line.",
    annotations: READS,
    input: { ...where, path, line: z.int().min(1).default(1), max_chars: z.int().min(1).max(20_000).default(2_800) },
    output: shapes.fileText,
    operation: async () => (await import('../../operations/inspect/files.ts')).readFile,
  }),
  tool({
    name: 'search',
    toolset: 'inspect',
    description:
      "Search an instance's files: the first lines that match a regular expression; with names: true, file names.",
    annotations: READS,
    input: { ...where, query: z.string(), names: z.boolean().default(false) },
    output: shapes.searchResult,
    operation: async () => (await import('../../operations/inspect/search.ts')).search,
  }),
];

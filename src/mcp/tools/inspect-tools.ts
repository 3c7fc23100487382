import * as z from 'zod';

import * as shapes from '../../operations/inspect/inspect-shapes.ts';
import { instance, READS, sessionId, type Tool, tool } from './tool.ts';

/** With a session: in that session's directory instead of the instance's. */
const where = { instance, session_id: sessionId.optional() };
const path = z.string();

/** Tools that look at the work itself, on the machine where it is done. */
export const INSPECT_TOOLS: readonly Tool[] = [
  tool({
    name: 'get_diff',
    toolset: 'inspect',
    description: 'What a session (default: the latest) changed, whole or in the turn of message_id.',
    annotations: READS,
    input: {
      ...where,
      message_id: z.string().optional(),
      path: path.optional(),
      offset: z.int().min(0).default(0),
    },
    output: shapes.changes,
    run: async (runtime, input, call) =>
      await (await import('../../operations/inspect/changes.ts')).getDiff(runtime, input, call),
  }),
  tool({
    name: 'list_files',
    toolset: 'inspect',
    description: "One folder of an instance's directory.",
    annotations: READS,
    input: { ...where, path: path.default(''), offset: z.int().min(0).default(0) },
    output: shapes.fileList,
    run: async (runtime, input, call) =>
      await (await import('../../operations/inspect/files.ts')).listFiles(runtime, input, call),
  }),
  tool({
    name: 'read_file',
    toolset: 'inspect',
    description: 'A text file there, from a line on.',
    annotations: READS,
    input: { ...where, path, line: z.int().min(1).default(1), max_chars: z.int().min(1).max(20_000).default(2_800) },
    output: shapes.fileText,
    run: async (runtime, input, call) =>
      await (await import('../../operations/inspect/files.ts')).readFile(runtime, input, call),
  }),
  tool({
    name: 'search',
    toolset: 'inspect',
    description: 'The first lines there that fit a regular expression, or files by name.',
    annotations: READS,
    input: { ...where, query: z.string(), names: z.boolean().default(false) },
    output: shapes.searchResult,
    run: async (runtime, input, call) =>
      await (await import('../../operations/inspect/search.ts')).search(runtime, input, call),
  }),
];

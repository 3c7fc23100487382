import * as z from 'zod';

import { deletedSession } from '../../operations/inspect/inspect-shapes.ts';
import { createdSession } from '../../operations/shapes.ts';
import { DRIVES, instance, sessionId, type Tool, tool } from './tool.ts';

/** Tools that change a session as a whole. */
export const SESSION_TOOLS: readonly Tool[] = [
  tool({
    name: 'fork_session',
    toolset: 'sessions',
    description: 'Copy a session, up to before message_id if given.',
    annotations: { ...DRIVES, destructiveHint: false },
    input: { instance, session_id: sessionId, message_id: z.string().optional() },
    output: createdSession,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/session-changes.ts')).forkSession(runtime, input, call),
  }),
  tool({
    name: 'rename_session',
    toolset: 'sessions',
    description: 'Give a session another title.',
    annotations: { ...DRIVES, destructiveHint: false, idempotentHint: true },
    input: { instance, session_id: sessionId, title: z.string() },
    output: createdSession,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/session-changes.ts')).renameSession(runtime, input, call),
  }),
  tool({
    name: 'delete_session',
    toolset: 'sessions',
    description: 'Delete an idle session for good.',
    annotations: DRIVES,
    input: { instance, session_id: sessionId },
    output: deletedSession,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/session-changes.ts')).deleteSession(runtime, input, call),
  }),
];

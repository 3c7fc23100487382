import * as z from 'zod';

import { deletedSession } from '../../operations/inspect/inspect-shapes.ts';
import { createdSession } from '../../operations/shapes.ts';
import { DRIVES, instance, sessionId, type Tool, tool } from './tool.ts';

/** Tools that change a session as a whole. */
export const SESSION_TOOLS: readonly Tool[] = [
  tool({
    name: 'fork_session',
    toolset: 'sessions',
    description: 'Copy a session; with message_id, only the messages before it.',
    annotations: { ...DRIVES, destructiveHint: false },
    input: { instance, session_id: sessionId, message_id: z.string().optional() },
    output: createdSession,
    operation: async () => (await import('../../operations/sessions/session-changes.ts')).forkSession,
  }),
  tool({
    name: 'rename_session',
    toolset: 'sessions',
    description: "Change a session's title.",
    annotations: { ...DRIVES, destructiveHint: false, idempotentHint: true },
    input: { instance, session_id: sessionId, title: z.string() },
    output: createdSession,
    operation: async () => (await import('../../operations/sessions/session-changes.ts')).renameSession,
  }),
  tool({
    name: 'delete_session',
    toolset: 'sessions',
    description: 'Delete an idle session permanently.',
    annotations: DRIVES,
    input: { instance, session_id: sessionId },
    output: deletedSession,
    operation: async () => (await import('../../operations/sessions/session-changes.ts')).deleteSession,
  }),
];

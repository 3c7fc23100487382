import * as z from 'zod';

import * as shapes from '../../operations/shapes.ts';
import { INSPECT_TOOLS } from './inspect-tools.ts';
import { SESSION_TOOLS } from './session-tools.ts';
import { DRIVES, instance, READS, sessionId, type Tool, tool } from './tool.ts';

// Described in the core tools only: the others take the same arguments, and every word costs context in each conversation.
const namedInstance = instance.describe('Name from instances, or an unambiguous part of it');
const describedSessionId = sessionId.optional().describe('Session id, its beginning, or a unique title');
const messageLimit = z.int().min(1).max(100);
const page = {
  offset: z.int().min(0).default(0),
  limit: z.int().min(1).max(500).optional(),
};
const before = z.string().optional();
const paging = {
  message_id: z.string().optional().describe('Only this message; for one you sent, the answer to it'),
  offset: z.int().min(0).optional().describe('Where to continue in message_id'),
  before: before.describe('Cursor from a result, for older messages'),
};

/** In the order of tools/list. */
export const TOOLS: readonly Tool[] = [
  tool({
    name: 'instances',
    toolset: 'core',
    description:
      'List every OpenCode instance, checked now: its state, where it runs, its latest session, how it is reached.',
    annotations: READS,
    input: { match: z.string().optional().describe('Only names that contain this'), ...page },
    output: shapes.instanceList,
    operation: async () => (await import('../../operations/listing/instances.ts')).instances,
  }),
  tool({
    name: 'send',
    toolset: 'core',
    description:
      "Send a message to an instance's agent and wait for the answer. Default session: the latest of its directory, or a new one. If the answer takes too long, the result says how to continue.",
    annotations: DRIVES,
    followsTurn: ({ message }) => message !== undefined,
    input: {
      instance: z
        .union([z.string(), z.array(z.string()).min(1).max(20)])
        .describe('Name from instances, or an unambiguous part of it; several to send to each'),
      message: z.string().optional(),
      abort: z.boolean().optional().describe('First stop what runs in the session'),
      session_id: describedSessionId,
      when_busy: z.enum(['fail', 'queue', 'interrupt']).optional(),
      agent: z.string().optional(),
      model: z.string().optional().describe('provider/model'),
      request_id: z.string().min(1).max(200).optional().describe('Repeating a call with it sends nothing twice'),
    },
    output: shapes.turn,
    operation: async () => (await import('../../operations/send/send.ts')).send,
  }),
  tool({
    name: 'read',
    toolset: 'core',
    description: 'Show the newest messages of a session (default: the latest), its state and what it waits for.',
    annotations: READS,
    input: {
      instance: namedInstance,
      session_id: describedSessionId,
      message_limit: messageLimit.default(10),
      ...paging,
    },
    output: shapes.transcript,
    operation: async () => (await import('../../operations/sessions/read.ts')).read,
  }),
  tool({
    name: 'respond',
    toolset: 'core',
    description:
      'Answer what an agent waits for (a permission or a question), then follow its turn. The person may be asked first.',
    annotations: DRIVES,
    followsTurn: () => true,
    input: {
      instance,
      request_id: z.string().optional().describe('Default: the only request that waits'),
      reply: z.enum(['once', 'always', 'reject']).optional(),
      message: z.string().optional().describe('With reject: what to do instead'),
      answers: z
        .array(z.array(z.string({ error: 'expected the label of a choice, such as [["Red"]]' })))
        .optional()
        .describe('For each question, the chosen labels'),
    },
    output: shapes.turn,
    operation: async () => (await import('../../operations/respond/respond.ts')).respond,
  }),
  tool({
    name: 'wait',
    toolset: 'core',
    description:
      'Wait until any (or all) of these instances are idle, need an answer, fail or vanish, and show what each said.',
    annotations: READS,
    followsTurn: () => true,
    input: {
      instances: z.array(z.string()).min(1).max(30).optional().describe('Default: all that work now'),
      session_id: sessionId.optional(),
      for: z.enum(['any', 'all']).default('any'),
      timeout_seconds: z.int().min(1).max(86_400).optional(),
    },
    output: shapes.turn,
    operation: async () => (await import('../../operations/send/wait.ts')).wait,
  }),
  tool({
    name: 'list_instances',
    toolset: 'instances',
    description: 'List the instances as last known, without checking them.',
    annotations: READS,
    input: page,
    output: shapes.instanceList,
    operation: async () => (await import('../../operations/listing/instances.ts')).listInstances,
  }),
  tool({
    name: 'refresh_instances',
    toolset: 'instances',
    description: 'Run discovery now, then list the instances.',
    annotations: READS,
    input: page,
    output: shapes.instanceList,
    operation: async () => (await import('../../operations/listing/instances.ts')).refreshInstances,
  }),
  tool({
    name: 'list_sessions',
    toolset: 'sessions',
    description: "List an instance's sessions, most recent first.",
    annotations: READS,
    input: { instance, search: z.string().optional() },
    output: shapes.sessionList,
    operation: async () => (await import('../../operations/sessions/sessions.ts')).listSessions,
  }),
  tool({
    name: 'get_session',
    toolset: 'sessions',
    description: 'Show one session and its newest messages.',
    annotations: READS,
    input: { instance, session_id: sessionId, message_limit: messageLimit.default(20), before },
    output: shapes.transcript,
    operation: async () => (await import('../../operations/sessions/read.ts')).read,
  }),
  tool({
    name: 'create_session',
    toolset: 'sessions',
    description: "Create an empty session in the instance's directory.",
    annotations: { ...DRIVES, destructiveHint: false },
    input: {
      instance,
      title: z.string().optional(),
      directory: z.string().optional().describe('For HOST:service only: a directory of its sessions'),
    },
    output: shapes.createdSession,
    operation: async () => (await import('../../operations/sessions/sessions.ts')).createSession,
  }),
  tool({
    name: 'send_message',
    toolset: 'sessions',
    description:
      'Send a message to one session and wait for the answer; async: true returns once the turn has started.',
    annotations: DRIVES,
    input: { instance, session_id: sessionId, message: z.string(), async: z.boolean().default(false) },
    output: shapes.turn,
    operation: async () => (await import('../../operations/send/send.ts')).send,
  }),
  tool({
    name: 'get_status',
    toolset: 'sessions',
    description: 'Show what one instance does now: its running sessions and what they wait for.',
    annotations: READS,
    input: { instance },
    output: shapes.status,
    operation: async () => (await import('../../operations/listing/status.ts')).getStatus,
  }),
  tool({
    name: 'abort_session',
    toolset: 'sessions',
    description: 'Stop what runs in a session, and verify that it stopped.',
    annotations: { ...DRIVES, idempotentHint: true },
    input: { instance, session_id: sessionId.optional() },
    output: shapes.turn,
    operation: async () => (await import('../../operations/send/abort.ts')).abortSession,
  }),
  ...SESSION_TOOLS,
  ...INSPECT_TOOLS,
];

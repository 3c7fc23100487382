import * as z from 'zod';

import * as shapes from '../../operations/shapes.ts';
import { INSPECT_TOOLS } from './inspect-tools.ts';
import { SESSION_TOOLS } from './session-tools.ts';
import { DRIVES, instance, READS, sessionId, type Tool, tool } from './tool.ts';

// Said once, in the core tools: the others take the same, and each word is in every conversation.
const namedInstance = instance.describe('Name from instances, or an unambiguous part of it');
const describedSessionId = sessionId.optional().describe('Session id, its beginning, or a unique title');
const messageLimit = z.int().min(1).max(100);
const page = {
  offset: z.int().min(0).default(0),
  limit: z.int().min(1).max(500).optional(),
};
const before = z.string().optional();
const paging = {
  message_id: z.string().optional().describe('Only this message; for a sent one, the answer to it'),
  offset: z.int().min(0).optional().describe('Where to go on in message_id'),
  before: before.describe('Cursor from a result: older messages'),
};

/** In the order in which they are listed. */
export const TOOLS: readonly Tool[] = [
  tool({
    name: 'instances',
    toolset: 'core',
    description:
      'Every OpenCode instance, asked now: what it does, where it runs, its latest session, how it is reached.',
    annotations: READS,
    input: { match: z.string().optional().describe('Only names that contain this'), ...page },
    output: shapes.instanceList,
    run: async (runtime, input, call) =>
      await (await import('../../operations/listing/instances.ts')).instances(runtime, input, call),
  }),
  tool({
    name: 'send',
    toolset: 'core',
    description:
      "Send a message to an instance's agent and wait for the answer. Default session: the latest of its directory, or a new one. Where the answer takes too long, the result says how to go on.",
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
    run: async (runtime, input, call) =>
      await (await import('../../operations/send/send.ts')).send(runtime, input, call),
  }),
  tool({
    name: 'read',
    toolset: 'core',
    description: 'The newest messages of a session (default: the latest), what it does and waits for.',
    annotations: READS,
    input: {
      instance: namedInstance,
      session_id: describedSessionId,
      message_limit: messageLimit.default(10),
      ...paging,
    },
    output: shapes.transcript,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/read.ts')).read(runtime, input, call),
  }),
  tool({
    name: 'respond',
    toolset: 'core',
    description:
      'Settle what an agent waits for (a permission, a question) and follow it on. The person may be asked first.',
    annotations: DRIVES,
    followsTurn: () => true,
    input: {
      instance,
      request_id: z.string().optional().describe('Default: the only one that waits'),
      reply: z.enum(['once', 'always', 'reject']).optional(),
      message: z.string().optional().describe('With reject: what to do instead'),
      answers: z
        .array(z.array(z.string({ error: 'expected the label of a choice, such as [["Red"]]' })))
        .optional()
        .describe('For each question, the labels chosen'),
    },
    output: shapes.turn,
    run: async (runtime, input, call) =>
      await (await import('../../operations/respond/respond.ts')).respond(runtime, input, call),
  }),
  tool({
    name: 'wait',
    toolset: 'core',
    description:
      'Wait until the first (or all) of these instances are idle, need an answer, fail or vanish; tells what each said.',
    annotations: READS,
    followsTurn: () => true,
    input: {
      instances: z.array(z.string()).min(1).max(30).optional().describe('Default: all that work now'),
      session_id: sessionId.optional(),
      for: z.enum(['any', 'all']).default('any'),
      timeout_seconds: z.int().min(1).max(86_400).optional(),
    },
    output: shapes.turn,
    run: async (runtime, input, call) =>
      await (await import('../../operations/send/wait.ts')).wait(runtime, input, call),
  }),
  tool({
    name: 'list_instances',
    toolset: 'instances',
    description: 'The instances as last known, without asking them.',
    annotations: READS,
    input: page,
    output: shapes.instanceList,
    run: async (runtime, input, call) =>
      await (await import('../../operations/listing/instances.ts')).listInstances(runtime, input, call),
  }),
  tool({
    name: 'refresh_instances',
    toolset: 'instances',
    description: 'Run discovery again now, then list the instances.',
    annotations: READS,
    input: page,
    output: shapes.instanceList,
    run: async (runtime, input, call) =>
      await (await import('../../operations/listing/instances.ts')).refreshInstances(runtime, input, call),
  }),
  tool({
    name: 'list_sessions',
    toolset: 'sessions',
    description: "An instance's sessions, most recent first.",
    annotations: READS,
    input: { instance, search: z.string().optional() },
    output: shapes.sessionList,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/sessions.ts')).listSessions(runtime, input, call),
  }),
  tool({
    name: 'get_session',
    toolset: 'sessions',
    description: 'One session and its newest messages.',
    annotations: READS,
    input: { instance, session_id: sessionId, message_limit: messageLimit.default(20), before },
    output: shapes.transcript,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/read.ts')).read(runtime, input, call),
  }),
  tool({
    name: 'create_session',
    toolset: 'sessions',
    description: "Start an empty session in the instance's directory.",
    annotations: { ...DRIVES, destructiveHint: false },
    input: {
      instance,
      title: z.string().optional(),
      directory: z.string().optional().describe('Of HOST:service only: a directory of its sessions'),
    },
    output: shapes.createdSession,
    run: async (runtime, input, call) =>
      await (await import('../../operations/sessions/sessions.ts')).createSession(runtime, input, call),
  }),
  tool({
    name: 'send_message',
    toolset: 'sessions',
    description: 'Send a message to one session and wait for the answer; async: true returns once it has begun.',
    annotations: DRIVES,
    input: { instance, session_id: sessionId, message: z.string(), async: z.boolean().default(false) },
    output: shapes.turn,
    run: async (runtime, input, call) =>
      await (await import('../../operations/send/send.ts')).send(runtime, input, call),
  }),
  tool({
    name: 'get_status',
    toolset: 'sessions',
    description: 'What one instance does now: running sessions and what they wait for.',
    annotations: READS,
    input: { instance },
    output: shapes.status,
    run: async (runtime, input, call) =>
      await (await import('../../operations/listing/status.ts')).getStatus(runtime, input, call),
  }),
  tool({
    name: 'abort_session',
    toolset: 'sessions',
    description: 'Stop what runs in a session, and make sure that it stopped.',
    annotations: { ...DRIVES, idempotentHint: true },
    input: { instance, session_id: sessionId.optional() },
    output: shapes.turn,
    run: async (runtime, input, call) =>
      await (await import('../../operations/send/abort.ts')).abortSession(runtime, input, call),
  }),
  ...SESSION_TOOLS,
  ...INSPECT_TOOLS,
];

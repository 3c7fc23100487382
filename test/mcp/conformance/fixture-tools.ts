import * as z from 'zod';

import type { Answer } from '../../../src/operations/answer.ts';
import { OperationError } from '../../../src/operations/answer.ts';
import type { Call } from '../../../src/operations/runtime.ts';
import { READS, type Tool, tool } from '../../../src/mcp/tools/tool.ts';

/**
 * The tools that the official conformance suite calls. `fixture-server.ts` builds them into the product instead of its own tools; all
 * else, from the reader to the tasks, is the product.
 */
const output = z.object({ text: z.string() });
const CHANGES = { ...READS, readOnlyHint: false } as const;

function answer(text: string): Answer<unknown> {
  return { data: { text }, text };
}

/** Asks the person for one field. */
async function ask(call: Call, id: string, field: string, message: string): Promise<string> {
  const form = { id, about: message, message, fields: { [field]: { title: message } }, required: [field] };
  const said = await call.askPerson?.(form, { timeoutMs: 60_000, signal: call.signal });
  if (said?.kind === 'accepted') return said.fields[field] ?? '';
  // The suite answers at once, faster than a person; these scenarios only test that it answers.
  return said?.kind ?? 'nobody';
}

export const TOOLS: readonly Tool[] = [
  tool({
    name: 'greet',
    toolset: 'core',
    description: 'Greets.',
    annotations: READS,
    input: { name: z.string() },
    output,
    operation:
      async () =>
      async (_, { name }) =>
        answer(`Hello, ${name}!`),
  }),
  tool({
    name: 'slow_compute',
    toolset: 'core',
    description: 'Takes its time.',
    annotations: READS,
    followsTurn: () => true,
    input: { seconds: z.number(), label: z.string().optional() },
    output,
    operation:
      async () =>
      async (runtime, { seconds, label = '' }, { signal }) => {
        await runtime.clock.sleep(seconds * 1000, signal);
        return answer(`computed ${label}`);
      },
  }),
  tool({
    name: 'failing_job',
    toolset: 'core',
    description: 'Fails.',
    annotations: READS,
    followsTurn: () => true,
    input: {},
    output,
    operation:
      async () =>
      async (runtime, _, { signal }) => {
        await runtime.clock.sleep(1_000, signal);
        throw new OperationError('it failed');
      },
  }),
  tool({
    name: 'protocol_error_job',
    toolset: 'core',
    description: 'Is a fault.',
    annotations: READS,
    followsTurn: () => true,
    input: {},
    output,
    operation: async () => async () => await Promise.reject(new Error('a fault')),
  }),
  tool({
    name: 'confirm_delete',
    toolset: 'core',
    description: 'Asks first.',
    annotations: CHANGES,
    followsTurn: () => true,
    input: { filename: z.string().optional() },
    output,
    operation:
      async () =>
      async (_, { filename = '' }, call) =>
        answer(await ask(call, 'delete', 'confirm', `Delete ${filename}?`)),
  }),
  tool({
    name: 'multi_input',
    toolset: 'core',
    description: 'Asks twice at once.',
    annotations: CHANGES,
    followsTurn: () => true,
    input: {},
    output,
    operation: async () => async (_, __, call) =>
      answer((await Promise.all(['one', 'two'].map((id) => ask(call, id, 'value', `Say ${id}`)))).join(', ')),
  }),
  ...['elicitation', 'request_state', 'tampered_state'].map((name) =>
    tool({
      name: `test_input_required_result_${name}`,
      toolset: 'core',
      description: 'Asks for a name.',
      annotations: CHANGES,
      input: {},
      output,
      operation: async () => async (_, __, call) =>
        answer(`state-ok Hello, ${await ask(call, 'name', 'name', 'What is your name?')}!`),
    }),
  ),
];

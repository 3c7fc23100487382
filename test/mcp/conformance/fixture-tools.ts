import * as z from 'zod';

import { type Answer, OperationError } from '../../../src/operations/answer.ts';
import type { Call, Runtime } from '../../../src/operations/runtime.ts';
import { READS, type Tool, tool } from '../../../src/mcp/tools/tool.ts';

/**
 * The tools that the official conformance suite calls. `fixture-server.ts` builds them into the product instead of its own tools; all
 * else, from the reader to the tasks, is the product.
 */
const output = z.object({ text: z.string() });

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

/** A tool that only reads, unless `more` says otherwise. */
function example<Shape extends z.ZodRawShape>(
  name: string,
  input: Shape,
  run: (input: z.output<z.ZodObject<Shape>>, call: Call, runtime: Runtime) => Promise<Answer<unknown>>,
  more: Partial<Pick<Tool, 'annotations' | 'followsTurn'>> = {},
): Tool {
  const operation = async () => (runtime: Runtime, given: z.output<z.ZodObject<Shape>>, call: Call) =>
    run(given, call, runtime);
  return tool({
    name,
    toolset: 'core',
    description: 'Is called by the suite.',
    annotations: READS,
    ...more,
    input,
    output,
    operation,
  });
}

const FOLLOWS = { followsTurn: () => true };
const ASKS = { annotations: { ...READS, readOnlyHint: false } } as const;

export const TOOLS: readonly Tool[] = [
  example('greet', { name: z.string() }, async ({ name }) => answer(`Hello, ${name}!`)),
  example(
    'slow_compute',
    { seconds: z.number(), label: z.string().optional() },
    async ({ seconds, label = '' }, { signal }, { clock }) => {
      await clock.sleep(seconds * 1000, signal);
      return answer(`computed ${label}`);
    },
    FOLLOWS,
  ),
  example(
    'failing_job',
    {},
    async (_, { signal }, { clock }) => {
      await clock.sleep(1_000, signal);
      throw new OperationError('it failed');
    },
    FOLLOWS,
  ),
  example('protocol_error_job', {}, async () => await Promise.reject(new Error('a fault')), FOLLOWS),
  example(
    'confirm_delete',
    { filename: z.string().optional() },
    async ({ filename = '' }, call) => answer(await ask(call, 'delete', 'confirm', `Delete ${filename}?`)),
    { ...FOLLOWS, ...ASKS },
  ),
  example(
    'multi_input',
    {},
    async (_, call) =>
      answer((await Promise.all(['one', 'two'].map((id) => ask(call, id, 'value', `Say ${id}`)))).join(', ')),
    { ...FOLLOWS, ...ASKS },
  ),
  ...['elicitation', 'request_state', 'tampered_state'].map((name) =>
    example(
      `test_input_required_result_${name}`,
      {},
      async (_, call) => answer(`state-ok Hello, ${await ask(call, 'name', 'name', 'What is your name?')}!`),
      ASKS,
    ),
  ),
];

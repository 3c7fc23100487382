import * as z from 'zod';

import { type Answer, OperationError } from '../../../src/operations/answer.ts';
import type { Call, Runtime } from '../../../src/operations/runtime.ts';
import { READS, type Tool, tool } from '../../../src/mcp/tools/tool.ts';

/**
 * The tools that the official conformance suite calls. `fixture-server.ts` builds them into the product in place of the product's tools; all
 * other code, from the message reader to the tasks, is the product's.
 */
const output = z.object({ text: z.string() });

function answer(text: string): Answer<unknown> {
  return { data: { text }, text };
}

/** Asks the person for one field and returns its value, or the kind of reply if the person did not accept. */
async function ask(call: Call, id: string, field: string, message: string): Promise<string> {
  const form = { id, about: message, message, fields: { [field]: { title: message } }, required: [field] };
  const reply = await call.askPerson?.(form, { timeoutMs: 60_000, signal: call.signal });
  if (reply?.kind === 'accepted') return reply.fields[field] ?? '';
  // The suite answers at once, faster than a person; these scenarios only test that a reply arrives.
  return reply?.kind ?? 'nobody';
}

/** Makes a read-only tool; `more` overrides its annotations. */
function fixtureTool<Shape extends z.ZodRawShape>(
  name: string,
  input: Shape,
  run: (input: z.output<z.ZodObject<Shape>>, call: Call, runtime: Runtime) => Promise<Answer<unknown>>,
  more: Partial<Pick<Tool, 'annotations' | 'followsTurn'>> = {},
): Tool {
  const operation = async () => (runtime: Runtime, parsedInput: z.output<z.ZodObject<Shape>>, call: Call) =>
    run(parsedInput, call, runtime);
  return tool({
    name,
    toolset: 'core',
    description: 'Called by the conformance suite.',
    annotations: READS,
    ...more,
    input,
    output,
    operation,
  });
}

const FOLLOWS_TURN = { followsTurn: () => true };
const ASKS_PERSON = { annotations: { ...READS, readOnlyHint: false } } as const;

export const TOOLS: readonly Tool[] = [
  fixtureTool('greet', { name: z.string() }, async ({ name }) => answer(`Hello, ${name}!`)),
  fixtureTool(
    'slow_compute',
    { seconds: z.number(), label: z.string().optional() },
    async ({ seconds, label = '' }, { signal }, { clock }) => {
      await clock.sleep(seconds * 1000, signal);
      return answer(`computed ${label}`);
    },
    FOLLOWS_TURN,
  ),
  fixtureTool(
    'failing_job',
    {},
    async (_, { signal }, { clock }) => {
      await clock.sleep(1_000, signal);
      throw new OperationError('it failed');
    },
    FOLLOWS_TURN,
  ),
  fixtureTool('protocol_error_job', {}, async () => await Promise.reject(new Error('a fault')), FOLLOWS_TURN),
  fixtureTool(
    'confirm_delete',
    { filename: z.string().optional() },
    async ({ filename = '' }, call) => answer(await ask(call, 'delete', 'confirm', `Delete ${filename}?`)),
    { ...FOLLOWS_TURN, ...ASKS_PERSON },
  ),
  fixtureTool(
    'multi_input',
    {},
    async (_, call) =>
      answer((await Promise.all(['one', 'two'].map((id) => ask(call, id, 'value', `Say ${id}`)))).join(', ')),
    { ...FOLLOWS_TURN, ...ASKS_PERSON },
  ),
  ...['elicitation', 'request_state', 'tampered_state'].map((name) =>
    fixtureTool(
      `test_input_required_result_${name}`,
      {},
      async (_, call) => answer(`state-ok Hello, ${await ask(call, 'name', 'name', 'What is your name?')}!`),
      ASKS_PERSON,
    ),
  ),
];

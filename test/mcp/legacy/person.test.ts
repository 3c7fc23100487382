import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { InMemoryTransport } from '@modelcontextprotocol/sdk/inMemory.js';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { ElicitRequestSchema, type ElicitResult } from '@modelcontextprotocol/sdk/types.js';
import { expect, test } from 'vitest';

import { personAsker } from '../../../src/mcp/legacy/person.ts';
import type { PersonAnswer } from '../../../src/operations/runtime.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';

const QUESTION = {
  id: 'per_1',
  about: 'a permission',
  message: 'Allow it?',
  fields: { decision: { title: 'Allow it?' } },
  required: ['decision'],
};

type Respond = () => Promise<ElicitResult>;

/** The answer to a form to which the SDK's own client responds with `respond` after `ms`. */
async function ask(
  ms: number,
  respond: Respond | undefined,
  { timeoutMs = 60_000, signal = new AbortController().signal } = {},
): Promise<PersonAnswer | undefined> {
  const clock = new ManualClock();
  const server = new Server({ name: 'server', version: '1' }, { capabilities: {} });
  const client = new Client({ name: 'client', version: '1' }, { capabilities: { elicitation: { form: {} } } });
  if (respond !== undefined) {
    client.setRequestHandler(ElicitRequestSchema, async () => {
      await clock.advance(ms);
      return await respond();
    });
  }
  const [here, there] = InMemoryTransport.createLinkedPair();
  await Promise.all([server.connect(here), client.connect(there)]);
  try {
    return await personAsker(server, clock)?.(QUESTION, { timeoutMs, signal });
  } finally {
    await client.close();
  }
}

const answer = (result: object) => async (): Promise<ElicitResult> => result as ElicitResult;
const fail = (message: string, code: number) => async (): Promise<never> => {
  throw Object.assign(new Error(message), { code });
};
const unavailable = (reason: RegExp) => ({ kind: 'unavailable', reason: expect.stringMatching(reason) });

test.each<[string, Respond, PersonAnswer]>([
  [
    'accept',
    answer({ action: 'accept', content: { decision: 'once', count: 3 } }),
    { kind: 'accepted', fields: { decision: 'once' } },
  ],
  ['accept without content', answer({ action: 'accept' }), { kind: 'accepted', fields: {} }],
  ['decline', answer({ action: 'decline' }), { kind: 'declined' }],
  ['cancel', answer({ action: 'cancel' }), { kind: 'dismissed' }],
])('%s is the person’s answer, unless it comes within 500 ms', async (_, respond, expected) => {
  expect(await ask(500, respond)).toEqual(expected);
  for (const ms of [0, 499]) expect(await ask(ms, respond)).toEqual(unavailable(/500 ms/));
});

test.each<[string, Respond | undefined, RegExp]>([
  ['an error', fail('no dialog here', -32_000), /no dialog here/],
  ['an error with the code of a timeout', fail('no time', -32_001), /no time/],
  ['a malformed result', answer({ action: 'later' }), /./],
  ['the capability, but no handler', undefined, /-32601/],
  // The issues of the schema are left out.
  [
    'a malformed content',
    answer({ action: 'accept', content: { decision: {} } }),
    /^it answered with an error: "MCP error -32602: .*Invalid elicitation result"$/,
  ],
])('a client that has %s cannot ask', async (_, respond, reason) => {
  for (const ms of [0, 10_000]) expect(await ask(ms, respond)).toEqual(unavailable(reason));
});

test('a question without an answer is late at the time limit, and when the call is cancelled', async () => {
  const never = (): Promise<ElicitResult> => new Promise(() => {});
  expect(await ask(1_000, never, { timeoutMs: 1 })).toEqual({ kind: 'late' });
  const controller = new AbortController();
  const asking = ask(1_000, never, { signal: controller.signal });
  controller.abort();
  expect(await asking).toEqual({ kind: 'late' });
});

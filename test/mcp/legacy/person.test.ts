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

/** Shows a form in the SDK's own client, which calls `respond` after `delayMs`; resolves with the person's answer. */
async function askPerson(
  delayMs: number,
  respond: Respond | undefined,
  { timeoutMs = 60_000, signal = new AbortController().signal } = {},
): Promise<PersonAnswer | undefined> {
  const clock = new ManualClock();
  const server = new Server({ name: 'server', version: '1' }, { capabilities: {} });
  const client = new Client({ name: 'client', version: '1' }, { capabilities: { elicitation: { form: {} } } });
  if (respond !== undefined) {
    client.setRequestHandler(ElicitRequestSchema, async () => {
      await clock.advance(delayMs);
      return await respond();
    });
  }
  const [serverTransport, clientTransport] = InMemoryTransport.createLinkedPair();
  await Promise.all([server.connect(serverTransport), client.connect(clientTransport)]);
  try {
    return await personAsker(server, clock)?.(QUESTION, { timeoutMs, signal });
  } finally {
    await client.close();
  }
}

const respondWith = (result: object) => async (): Promise<ElicitResult> => result as ElicitResult;
const failWith = (message: string, code: number) => async (): Promise<never> => {
  throw Object.assign(new Error(message), { code });
};
const unavailable = (reason: RegExp) => ({ kind: 'unavailable', reason: expect.stringMatching(reason) });

test.each<[string, Respond, PersonAnswer]>([
  [
    'accept',
    respondWith({ action: 'accept', content: { decision: 'once', count: 3 } }),
    { kind: 'accepted', fields: { decision: 'once' } },
  ],
  ['accept without content', respondWith({ action: 'accept' }), { kind: 'accepted', fields: {} }],
  ['decline', respondWith({ action: 'decline' }), { kind: 'declined' }],
  ['cancel', respondWith({ action: 'cancel' }), { kind: 'dismissed' }],
])('%s counts as the person’s answer only after 500 ms', async (_, respond, expected) => {
  expect(await askPerson(500, respond)).toEqual(expected);
  for (const delayMs of [0, 499]) expect(await askPerson(delayMs, respond)).toEqual(unavailable(/500 ms/));
});

test.each<[string, Respond | undefined, RegExp]>([
  ['an error', failWith('no dialog here', -32_000), /no dialog here/],
  ['an error with the code of a timeout', failWith('no time', -32_001), /no time/],
  ['a malformed result', respondWith({ action: 'later' }), /./],
  ['"no such method", since it has no handler', undefined, /-32601/],
  // The reason leaves out the issues of the schema.
  [
    'malformed content',
    respondWith({ action: 'accept', content: { decision: {} } }),
    /^it answered with an error: "MCP error -32602: .*Invalid elicitation result"$/,
  ],
])('asking is unavailable if the client responds with %s', async (_, respond, reason) => {
  for (const delayMs of [0, 10_000]) expect(await askPerson(delayMs, respond)).toEqual(unavailable(reason));
});

test('an unanswered question is late after its time limit or when the call is cancelled', async () => {
  const never = (): Promise<ElicitResult> => new Promise(() => {});
  expect(await askPerson(1_000, never, { timeoutMs: 1 })).toEqual({ kind: 'late' });
  const controller = new AbortController();
  const asking = askPerson(1_000, never, { signal: controller.signal });
  controller.abort();
  expect(await asking).toEqual({ kind: 'late' });
});

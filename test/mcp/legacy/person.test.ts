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

/** The answer to a form to which the SDK's own client responds with `respond` after `ms`. */
async function ask(
  ms: number,
  respond: (() => Promise<ElicitResult>) | undefined,
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

const accept = async (): Promise<ElicitResult> => ({ action: 'accept', content: { decision: 'once', count: 3 } });
const decline = async (): Promise<ElicitResult> => ({ action: 'decline' });
const cancel = async (): Promise<ElicitResult> => ({ action: 'cancel' });
const fail = async (): Promise<never> => {
  throw Object.assign(new Error('no dialog here'), { code: -32_000 });
};

test.each([
  ['accept', accept],
  ['decline', decline],
  ['cancel', cancel],
])('%s within 500 ms is not from a person', async (_, respond) => {
  for (const ms of [0, 499])
    expect(await ask(ms, respond)).toEqual({
      kind: 'unavailable',
      reason: expect.stringContaining('500 ms') as string,
    });
});

test("later answers are the person's", async () => {
  expect(await ask(500, accept)).toEqual({ kind: 'accepted', fields: { decision: 'once' } });
  expect(await ask(500, async () => ({ action: 'accept' }))).toEqual({ kind: 'accepted', fields: {} });
  expect(await ask(500, decline)).toEqual({ kind: 'declined' });
  expect(await ask(500, cancel)).toEqual({ kind: 'dismissed' });
});

test.each([0, 10_000])('any error means that the client cannot ask: after %i ms', async (ms) => {
  expect(await ask(ms, fail)).toEqual({
    kind: 'unavailable',
    reason: expect.stringContaining('no dialog here') as string,
  });
  const malformed = async (): Promise<ElicitResult> => ({ action: 'later' }) as never;
  expect(await ask(ms, malformed)).toMatchObject({ kind: 'unavailable' });
  // The client declares the capability but does not implement it.
  expect(await ask(ms, undefined)).toEqual({
    kind: 'unavailable',
    reason: expect.stringContaining('-32601') as string,
  });
});

test("an error with a schema's issues is shortened to its first sentence", async () => {
  const strange = async (): Promise<ElicitResult> => ({ action: 'accept', content: { decision: {} } }) as never;
  expect(await ask(1_000, strange)).toEqual({
    kind: 'unavailable',
    reason: expect.stringMatching(
      /^it answered with an error: "MCP error -32602: .*Invalid elicitation result"$/,
    ) as string,
  });
});

test('an error with the code of a timeout is not a timeout', async () => {
  const timeout = async (): Promise<never> => {
    throw Object.assign(new Error('no time'), { code: -32_001 });
  };
  expect(await ask(0, timeout)).toMatchObject({ kind: 'unavailable' });
});

test('no answer before the time is up, or before the call is cancelled, is late', async () => {
  const never = (): Promise<ElicitResult> => new Promise(() => {});
  expect(await ask(1_000, never, { timeoutMs: 1 })).toEqual({ kind: 'late' });
  const controller = new AbortController();
  const asking = ask(1_000, never, { signal: controller.signal });
  controller.abort();
  expect(await asking).toEqual({ kind: 'late' });
});

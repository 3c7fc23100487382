import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { ElicitRequestSchema, type ElicitResult } from '@modelcontextprotocol/sdk/types.js';
import { afterEach, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/programs/mcp-child.ts';
import { toolReply } from '../rig/model/model-script.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { dataOf, refusalOf, useWorker } from './stage.ts';

const worker = useWorker();
const { data, refusal, newSession } = worker;
const containing = (text: string): string => expect.stringContaining(text) as string;

/** A request that a test leaves open must not wait in the next one. */
afterEach(async () => {
  const busy = async (): Promise<string[]> => Object.keys(await worker.opencode.json<object>('GET', '/session/status'));
  for (const id of await busy()) await worker.opencode.request('POST', `/session/${id}/abort`);
  await until('everything to be idle', async () => (await busy()).length === 0);
});

/** A session whose turn waits for an answer, and the request's id. */
async function waiting(message: string): Promise<{ readonly session_id: string; readonly request_id: string }> {
  const session_id = await newSession();
  const sent = await data('send', { session_id, message });
  expect(sent).toMatchObject({ outcome: 'waiting' });
  const request_id = /(?:per|que)_\w+/.exec((sent['waiting'] as string[])[0] ?? '')?.[0] ?? '';
  return { session_id, request_id };
}

const pending = (): Promise<readonly { readonly id: string }[]> => worker.opencode.json('GET', '/permission');

describe('a permission', () => {
  test('is allowed once: the command runs, the call returns the end of the turn, and the request is gone', async () => {
    const { session_id, request_id } = await waiting('bash: echo permitted');
    expect(await data('respond', { reply: 'once' })).toMatchObject({
      outcome: 'completed',
      session: { id: session_id },
      settled: containing('allowed once'),
      text: toolReply('bash', 'permitted'),
    });
    expect(await refusal('respond', { request_id, reply: 'once' })).toContain('does not wait for');
  });

  test('is rejected; if the rejection has a message, the agent continues with it', async () => {
    await waiting('bash: echo refused');
    const rejected = { outcome: 'completed', settled: containing('rejected') };
    expect(await data('respond', { reply: 'reject' })).toMatchObject(rejected);
    await waiting('bash: echo again');
    expect(await data('respond', { reply: 'reject', message: 'use printf instead' })).toMatchObject({
      ...rejected,
      text: containing('use printf instead'),
    });
  });

  test("of a sub-agent is marked in every listing, and its answer continues the root session's turn", async () => {
    const { session_id, request_id } = await waiting('task: bash: echo from below');
    const marked = [expect.stringMatching(/«bash "echo from below"» \(a sub-agent asks\)$/) as string];
    expect(await data('read', { session_id })).toMatchObject({ session: { state: 'waiting' }, waiting: marked });
    expect(await data('get_status')).toMatchObject({ state: 'waiting', waiting: marked });
    const instances = [{ state: 'waiting', waiting: marked }];
    expect(dataOf(await worker.server.call('instances'))).toMatchObject({ instances });
    expect(await data('respond', { request_id, reply: 'once' })).toMatchObject({
      outcome: 'completed',
      session: { id: session_id },
      text: containing('from below'),
    });
  });

  test('is answered by its id while another permission is pending', async () => {
    const one = await waiting('bash: echo one');
    const two = await waiting('bash: echo two');
    for (const [{ request_id }, text] of [
      [two, 'two'],
      [one, 'one'],
    ] as const)
      expect(await data('respond', { request_id, reply: 'once' })).toMatchObject({ text: toolReply('bash', text) });
  });
});

test('a question is answered with one of its options, or rejected', async () => {
  await waiting('ask: Which color?|Red|Blue');
  expect(await data('respond', { answers: [['Blue']] })).toMatchObject({
    outcome: 'completed',
    text: containing('Blue'),
  });
  const { session_id } = await waiting('ask: Which size?|Big|Small');
  expect(await data('respond', { reply: 'reject' })).toMatchObject({
    session: { id: session_id },
    settled: containing('rejected'),
  });
});

/** An answer that comes earlier is taken for the client's own. */
const PERSON_MS = 700;

/** A server whose client shows forms; the person gives the next of `answers` to each. */
async function withPerson(
  ...answers: readonly (ElicitResult | (() => Promise<ElicitResult>))[]
): Promise<{ readonly server: McpChild; readonly forms: string[] }> {
  const left = [...answers];
  const forms: string[] = [];
  const server = await worker.stage.server({
    capabilities: { elicitation: { form: {} } },
    prepare: (client) =>
      client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
        forms.push(params.message);
        await pause(PERSON_MS);
        const answer = left.shift();
        if (answer === undefined) throw new Error('the person was asked once too often');
        return typeof answer === 'function' ? await answer() : answer;
      }),
  });
  return { server, forms };
}

const accept = (content: NonNullable<ElicitResult['content']>): ElicitResult => ({ action: 'accept', content });

describe('a client that can ask the person', () => {
  test('shows the person the exact command and carries out the decision', async () => {
    const { server, forms } = await withPerson(accept({ decision: 'reject', feedback: 'not here' }));
    const command = 'echo "a `b`" && echo done';
    await waiting(`bash: ${command}`);
    const rejected = dataOf(await server.call('respond', { instance: 'worker', reply: 'once' }));
    expect(rejected).toMatchObject({ settled: containing('rejected'), text: containing('not here') });
    expect(forms).toEqual([containing(`\n${command}\n`)]);
  });

  test('asks about each request during a send, which returns the whole answer', async () => {
    const { server, forms } = await withPerson(accept({ decision: 'once' }), accept({ answer_1: 'Red' }));
    const calls = [
      ['bash', { command: 'echo allowed' }],
      [
        'question',
        { questions: [{ question: 'Which?', header: 'Which?', options: [{ label: 'Red', description: '' }] }] },
      ],
    ];
    const message = `plan: ${JSON.stringify(calls)}`;
    expect(dataOf(await server.call('send', { instance: 'worker', message }))).toMatchObject({
      outcome: 'completed',
      settled: expect.stringMatching(/^allowed once: .*; answered /) as string,
      text: containing('Red'),
    });
    expect(forms).toHaveLength(2);
  });

  test('asks during a wait about a pending request, unless the server is read-only', async () => {
    const { server, forms } = await withPerson(accept({ decision: 'once' }));
    await waiting('task: bash: echo below');
    const readOnly = await worker.stage.server({ args: ['--read-only'], capabilities: { elicitation: { form: {} } } });
    const turns = async (waiter: McpChild): Promise<unknown> =>
      dataOf(await waiter.call('wait', { instances: ['worker'] }))['turns'];
    expect(await turns(readOnly)).toMatchObject([{ outcome: 'waiting' }]);
    expect(await turns(server)).toMatchObject([
      {
        outcome: 'completed',
        settled: expect.stringMatching(/^allowed once: .*a sub-agent asks/) as string,
      },
    ]);
    expect(forms).toEqual([containing('A sub-agent of the agent')]);
  });

  test('sends no answer if the turn is aborted while the form is open', async () => {
    const { session_id, request_id } = await waiting('bash: echo too late');
    const { server } = await withPerson(async () => {
      await worker.opencode.request('POST', `/session/${session_id}/abort`);
      return accept({ decision: 'once' });
    });
    const late = await server.call('respond', { instance: 'worker', request_id, reply: 'once' });
    expect(refusalOf(late)).toContain('Nothing was answered by this call');
    // opencode would have accepted the answer.
    expect(await pending()).toContainEqual(expect.objectContaining({ id: request_id }));
  });

  test('can allow a command always, after which opencode does not ask again', async () => {
    const { server, forms } = await withPerson(accept({ decision: 'always' }));
    await waiting('bash: printf standing');
    dataOf(await server.call('respond', { instance: 'worker' }));
    const again = await server.call('send', { instance: 'worker', message: 'bash: printf standing' });
    expect(dataOf(again)).toMatchObject({ outcome: 'completed', text: toolReply('bash', 'standing') });
    expect(forms).toHaveLength(1);
  });
});

/** The rules for shell commands, held to the patterns that opencode really lists for a command. */
describe('approval rules', () => {
  async function withRules(...approvals: readonly object[]): Promise<McpChild> {
    await using temp = tempDir('approvals');
    const config = join(temp.path, 'config.json');
    await writeFile(config, JSON.stringify({ approve: 'model', approvals }), { mode: 0o600 });
    return await worker.stage.server({ args: ['--config', config] });
  }

  test('a rule with approve "never" applies to any part of a command that it matches', async () => {
    const server = await withRules(
      { permission: 'bash', pattern: 'git status*', approve: 'model' },
      ...['rm *', '> *'].map((pattern) => ({ pattern, approve: 'never' })),
    );
    for (const command of ['true; rm F', 'git status <<E; rm F\nx\nE', 'FOO=1 rm F', '> F; true']) {
      const { request_id } = await waiting(`bash: ${command}`);
      const refused = await server.call('respond', { instance: 'worker', request_id, reply: 'once' });
      expect(refusalOf(refused), command).toMatch(/Nothing was answered.*never/);
    }
  });

  test('a rule with approve "model" covers only what its pattern matches', async () => {
    const server = await withRules({ permission: 'bash', pattern: 'echo *', approve: 'model' }, { approve: 'never' });
    const allow = async (command: string): Promise<ToolCall> => {
      const { request_id } = await waiting(`bash: ${command}`);
      return await server.call('respond', { instance: 'worker', request_id, reply: 'once' });
    };
    expect(refusalOf(await allow('> F; echo a'))).toContain('never');
    expect(dataOf(await allow('echo a && (echo b | echo "c; d")'))).toMatchObject({
      text: toolReply('bash', 'a\nc; d'),
    });
  });
});

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { ElicitRequestSchema, type ElicitResult } from '@modelcontextprotocol/sdk/types.js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { toolReply } from '../rig/model-script.ts';
import type { Opencode } from '../rig/opencode.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};
let stage: Stage;
let opencode: Opencode;
let server: McpChild;

beforeAll(async () => {
  stage = await openStage();
  opencode = await stage.opencode();
  await stage.register('worker', opencode);
  server = await stage.server();
});
afterAll(() => stage.close());
/** Requests that a test leaves waiting must not wait in the next. */
afterEach(async () => {
  const busy = async (): Promise<string[]> => Object.keys(await opencode.json<object>('GET', '/session/status'));
  for (const id of await busy()) await opencode.request('POST', `/session/${id}/abort`);
  await until('everything to be idle', async () => (await busy()).length === 0);
});

async function newSession(): Promise<string> {
  const { session } = data(await server.call('create_session', { instance: 'worker' })) as { session: { id: string } };
  return session.id;
}

/** A session that waits with a request, and the request's id. */
async function standing(message: string, on: McpChild = server): Promise<{ session_id: string; request_id: string }> {
  const session_id = await newSession();
  const sent = data(await on.call('send', { instance: 'worker', session_id, message }));
  expect(sent).toMatchObject({ outcome: 'waiting' });
  const request_id = /(?:per|que)_\w+/.exec((sent['waiting'] as string[])[0] ?? '')?.[0] ?? '';
  return { session_id, request_id };
}

const pending = (): Promise<{ id: string }[]> => opencode.json('GET', '/permission');
const abort = (session_id: string): Promise<unknown> =>
  server.call('abort_session', { instance: 'worker', session_id });

/** A person takes their time, by the server's clock. */
const PERSON_MS = 700;

/** A server whose client asks a person: each gets the next of `answers` after `ms`; `messages` collects the forms. */
async function withPerson(
  answers: readonly (ElicitResult | 'never' | (() => Promise<ElicitResult>))[],
  env: Readonly<Record<string, string>> = {},
  ms = PERSON_MS,
  args: readonly string[] = [],
): Promise<{ readonly child: McpChild; readonly messages: string[] }> {
  const left = [...answers];
  const messages: string[] = [];
  const child = await stage.server({
    env,
    args,
    capabilities: { elicitation: { form: {} } },
    prepare: (client) =>
      client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
        messages.push(params.message);
        if (ms > 0) await pause(ms);
        const answer = left.shift();
        if (answer === undefined) throw new Error('the person was asked once too often');
        if (typeof answer === 'function') return await answer();
        return answer === 'never' ? await new Promise<ElicitResult>(() => {}) : answer;
      }),
  });
  return { child, messages };
}

describe('a permission, settled by the model where the client cannot ask the person', () => {
  test('once: the command runs, and the turn is followed to its end', async () => {
    const { session_id, request_id } = await standing('bash: echo permitted');
    const answered = await server.call('respond', { instance: 'worker', reply: 'once' });
    expect(data(answered)).toMatchObject({
      outcome: 'completed',
      session: { id: session_id },
      settled: expect.stringContaining('allowed once') as string,
      text: toolReply('bash', 'permitted'),
    });
    expect(answered.text).toContain('bash returned: permitted');
    expect(await pending()).not.toContainEqual(expect.objectContaining({ id: request_id }));
  });

  test('reject ends the turn, and with a message the agent goes on with it', async () => {
    await standing('bash: echo refused');
    expect(data(await server.call('respond', { instance: 'worker', reply: 'reject' }))).toMatchObject({
      outcome: 'completed',
      settled: expect.stringContaining('rejected') as string,
    });
    await standing('bash: echo again');
    const told = data(
      await server.call('respond', { instance: 'worker', reply: 'reject', message: 'use printf instead' }),
    );
    expect(told).toMatchObject({ outcome: 'completed' });
    expect(told['text']).toContain('use printf instead');
  });

  test('a model cannot reply always, and without a reply nothing is answered', async () => {
    const { session_id, request_id } = await standing('bash: echo for ever');
    for (const args of [{ reply: 'always' }, {}, { answers: [['x']] }, { reply: 'once', message: 'hm' }]) {
      const refused = await server.call('respond', { instance: 'worker', ...args });
      expect(refused.result.isError).toBe(true);
      expect(refused.text).toContain('Nothing was answered');
    }
    expect(await pending()).toContainEqual(expect.objectContaining({ id: request_id }));
    await abort(session_id);
  });

  test("a sub-agent's request is marked as such, and its answer continues the whole turn", async () => {
    const { session_id, request_id } = await standing('task: bash: echo from below');
    const read = data(await server.call('read', { instance: 'worker', session_id }));
    expect(read).toMatchObject({
      session: { state: 'waiting' },
      waiting: [expect.stringMatching(/«bash "echo from below"» \(a sub-agent asks\)$/) as string],
    });
    const answered = data(await server.call('respond', { instance: 'worker', request_id, reply: 'once' }));
    expect(answered).toMatchObject({ outcome: 'completed', session: { id: session_id } });
    expect(answered['text']).toContain('from below');
  });

  test('two at once: the default is an error that names both, and each is settled by its id', async () => {
    const one = await standing('bash: echo one');
    const two = await standing('bash: echo two');
    const unclear = await server.call('respond', { instance: 'worker', reply: 'once' });
    expect(unclear.text).toContain(one.request_id);
    expect(unclear.text).toContain(two.request_id);
    expect(data(await server.call('get_status', { instance: 'worker' }))).toMatchObject({
      state: 'waiting',
      waiting: expect.arrayContaining([expect.stringContaining(one.request_id) as string]) as string[],
    });
    for (const [{ request_id }, text] of [
      [two, 'two'],
      [one, 'one'],
    ] as const) {
      expect(data(await server.call('respond', { instance: 'worker', request_id, reply: 'once' }))).toMatchObject({
        outcome: 'completed',
        text: toolReply('bash', text),
      });
    }
  });

  test('a request settled in the terminal, or left by an abort, is reported as gone', async () => {
    const settled = await standing('bash: echo elsewhere');
    await opencode.request('POST', `/permission/${settled.request_id}/reply`, { reply: 'once' });
    const late = await server.call('respond', {
      instance: 'worker',
      request_id: settled.request_id,
      reply: 'once',
    });
    expect(late.text).toContain('does not wait for');
    const left = await standing('bash: echo left');
    await opencode.json('POST', `/session/${left.session_id}/abort`);
    await until('it to be idle', async () => Object.keys(await opencode.json('GET', '/session/status')).length === 0);
    // opencode still lists it.
    expect(await pending()).toContainEqual(expect.objectContaining({ id: left.request_id }));
    expect(data(await server.call('instances'))).toMatchObject({ instances: [{ state: 'idle' }] });
    expect(data(await server.call('get_status', { instance: 'worker' }))).toMatchObject({ state: 'idle', waiting: [] });
    const stale = await server.call('respond', { instance: 'worker', reply: 'once' });
    expect(stale.text).toContain('waits for nothing');
  });

  test('a call continues with the turn when the request is answered in the terminal', async () => {
    const { session_id, request_id } = await standing('bash: echo answered there');
    await opencode.request('POST', `/permission/${request_id}/reply`, { reply: 'once' });
    await until('the turn to end', async () => {
      const { turns } = data(await server.call('wait', { instances: ['worker'], session_id })) as {
        turns: { outcome: string; text: string }[];
      };
      return turns[0]?.outcome === 'completed' && turns[0].text === toolReply('bash', 'answered there');
    });
  });
});

describe('a question', () => {
  test('answered with one of its options', async () => {
    await standing('ask: Which color?|Red|Blue');
    const answered = data(await server.call('respond', { instance: 'worker', answers: [['Blue']] }));
    expect(answered).toMatchObject({ outcome: 'completed' });
    expect(answered['text']).toContain('Blue');
  });

  test('rejected, and bad answers change nothing', async () => {
    const { session_id } = await standing('ask: Which size?|Big|Small');
    for (const answers of [[], [['Big', 'Small']], [['']], [['Big'], ['Small']]]) {
      const refused = await server.call('respond', { instance: 'worker', answers });
      expect(refused.result.isError).toBe(true);
      expect(refused.text).toContain('Nothing was answered');
    }
    const rejected = data(await server.call('respond', { instance: 'worker', reply: 'reject' }));
    expect(rejected).toMatchObject({
      session: { id: session_id },
      settled: expect.stringContaining('rejected') as string,
    });
  });
});

describe('where the client can ask the person', () => {
  test('they see the exact command in a fence, and their decision is carried out', async () => {
    const { child, messages } = await withPerson([
      { action: 'accept', content: { decision: 'once' } },
      { action: 'accept', content: { decision: 'reject', feedback: 'not here' } },
    ]);
    const command = 'echo "a `b`" && echo done';
    await standing(`bash: ${command}`);
    expect(data(await child.call('respond', { instance: 'worker', reply: 'once' }))).toMatchObject({
      outcome: 'completed',
      settled: expect.stringContaining('allowed once') as string,
    });
    expect(messages[0]).toContain(`\n${command}\n`);
    expect(messages[0]).toContain('worker');
    await standing('bash: echo no');
    const rejected = data(await child.call('respond', { instance: 'worker', reply: 'once' }));
    expect(rejected['settled']).toContain('rejected');
    expect(rejected['text']).toContain('not here');
  });

  test('cancel and silence mean no reply at all', async () => {
    const { child, messages } = await withPerson([{ action: 'cancel' }, 'never'], { SEND_TIMEOUT_MS: '3000' });
    const { session_id, request_id } = await standing('bash: echo undecided');
    for (const [index, expected] of [/closed the form/, /did not decide .* in time/].entries()) {
      const open = await child.call('respond', { instance: 'worker', reply: 'once' });
      expect(open.text).toMatch(/^Nothing was answered/);
      expect(open.text).toMatch(expected);
      expect(messages).toHaveLength(index + 1);
      expect(await pending()).toContainEqual(expect.objectContaining({ id: request_id }));
    }
    await abort(session_id);
  });

  test('a decline rejects, and nobody is asked again', async () => {
    const { child, messages } = await withPerson([{ action: 'decline' }, { action: 'decline' }]);
    for (const message of ['bash: echo declined', 'ask: Which shape?|Round|Square']) {
      const { session_id } = await standing(message);
      const rejected = data(await child.call('respond', { instance: 'worker' }));
      expect(rejected).toMatchObject({
        outcome: 'completed',
        session: { id: session_id },
        settled: expect.stringContaining('rejected') as string,
      });
      expect(data(await child.call('get_status', { instance: 'worker' }))).toMatchObject({ waiting: [] });
    }
    expect(messages).toHaveLength(2);
  });

  test.each([
    ['accepts', (): ElicitResult => ({ action: 'accept', content: { decision: 'once' } })],
    ['declines', (): ElicitResult => ({ action: 'decline' })],
    ['cancels', (): ElicitResult => ({ action: 'cancel' })],
    [
      'knows no forms',
      (): ElicitResult => {
        throw Object.assign(new Error('Method not found'), { code: -32_601 });
      },
    ],
  ])('one that declares it and %s by itself settles nothing, and is not sent into a loop', async (_, itself) => {
    const { child, messages } = await withPerson([async () => itself()], {}, 0);
    const { session_id, request_id } = await standing('bash: echo nobody saw it');
    const open = await child.call('respond', { instance: 'worker', request_id, reply: 'once' });
    expect(open.result.isError).toBe(true);
    expect(open.text).toMatch(
      /^Nothing was answered: this client could not ask the person.*still waits in that opencode/,
    );
    expect(open.text).not.toMatch(/again|bug/);
    expect(messages).toHaveLength(1);
    expect(await pending()).toContainEqual(expect.objectContaining({ id: request_id }));
    await abort(session_id);
  });

  test('a request whose turn was aborted while the form was open is not answered', async () => {
    const { session_id, request_id } = await standing('bash: echo too late');
    const { child } = await withPerson([
      async () => {
        await abort(session_id);
        return { action: 'accept', content: { decision: 'once' } };
      },
    ]);
    const late = await child.call('respond', { instance: 'worker', request_id, reply: 'once' });
    expect(late.result.isError).toBe(true);
    expect(late.text).toContain('Nothing was answered by this call');
    // opencode would have accepted it and answered true.
    expect(await pending()).toContainEqual(expect.objectContaining({ id: request_id }));
  });

  test('the form of an aborted turn is withdrawn', async () => {
    const { session_id, request_id } = await standing('bash: echo stopped');
    const { child, messages } = await withPerson(['never']);
    const asking = child.call('respond', { instance: 'worker', request_id, reply: 'once' });
    await until('the person to be asked', () => messages.length === 1);
    await abort(session_id);
    expect((await asking).text).toContain('Nothing was answered by this call');
  });

  test('they can give a standing permission', async () => {
    const { child } = await withPerson([{ action: 'accept', content: { decision: 'always' } }]);
    await standing('bash: printf standing');
    expect(data(await child.call('respond', { instance: 'worker' }))).toMatchObject({ outcome: 'completed' });
    // A fitting answer is not asked for again.
    const again = await child.call('send', { instance: 'worker', message: 'bash: printf standing' });
    expect(data(again)).toMatchObject({ outcome: 'completed', text: toolReply('bash', 'standing') });
  });

  test('they answer questions that the model leaves to them', async () => {
    const { child, messages } = await withPerson([{ action: 'accept', content: { answer_1: 'Red' } }]);
    await standing('ask: Which colour?|Red|Blue');
    const answered = data(await child.call('respond', { instance: 'worker' }));
    expect(answered['text']).toContain('Red');
    expect(messages[0]).toContain('Which colour?');
  });

  test('send asks them at each request of the turn, and returns the whole answer', async () => {
    const { child, messages } = await withPerson([
      { action: 'accept', content: { decision: 'once' } },
      { action: 'accept', content: { answer_1: 'Red' } },
      { action: 'cancel' },
    ]);
    const allowed = data(await child.call('send', { instance: 'worker', message: 'bash: echo allowed in the call' }));
    expect(allowed).toMatchObject({
      outcome: 'completed',
      text: toolReply('bash', 'allowed in the call'),
      settled: expect.stringContaining('allowed once') as string,
    });
    const answered = data(await child.call('send', { instance: 'worker', message: 'ask: Which colour?|Red|Blue' }));
    expect(answered).toMatchObject({ outcome: 'completed', text: expect.stringContaining('Red') as string });
    const closed = await child.call('send', { instance: 'worker', message: 'bash: echo closed' });
    expect(data(closed)).toMatchObject({
      outcome: 'waiting',
      reason: expect.stringContaining('closed the form') as string,
    });
    expect(closed.result.isError).not.toBe(true);
    expect(messages).toHaveLength(3);
  });

  test('wait asks them about a request that already waits', async () => {
    const { child, messages } = await withPerson([{ action: 'accept', content: { decision: 'once' } }]);
    const { session_id } = await standing('task: bash: echo below');
    const { turns } = data(await child.call('wait', { instances: ['worker'] })) as { turns: unknown[] };
    expect(turns).toMatchObject([
      {
        outcome: 'completed',
        session: { id: session_id },
        settled: expect.stringMatching(/^allowed once: .*a sub-agent asks/) as string,
      },
    ]);
    expect(messages[0]).toContain('A sub-agent of the agent');
  });

  test('wait of a read-only server asks nobody', async () => {
    const { session_id } = await standing('bash: echo only looked at');
    const { child, messages } = await withPerson([], {}, PERSON_MS, ['--read-only']);
    const { turns } = data(await child.call('wait', { instances: ['worker'] })) as { turns: unknown[] };
    expect(turns).toMatchObject([{ outcome: 'waiting', session: { id: session_id } }]);
    expect(messages).toEqual([]);
    await abort(session_id);
  });
});

describe('who may settle', () => {
  /** The rules are for `worker`; the default is the model. */
  async function withRules(approvals: readonly object[]): Promise<McpChild> {
    await using temp = tempDir('approvals');
    const config = join(temp.path, 'config.json');
    await writeFile(config, JSON.stringify({ approve: 'model', approvals }), { mode: 0o600 });
    const child = await stage.server({ args: ['--config', config] });
    await child.call('instances');
    return child;
  }

  test.each([
    ['true; rm F', { pattern: 'rm *', approve: 'never' }],
    ['git status <<E; rm F\nx\nE', { pattern: 'rm *', approve: 'never' }],
    ['FOO=1 rm F', { pattern: 'rm *', approve: 'never' }],
    ['> F; true', { pattern: '> *', approve: 'never' }],
    ['true # to be seen', { instance: 'WORKER@test-host', approve: 'never' }],
  ])('a rule for nobody holds for all of %j', async (command, rule) => {
    const child = await withRules([{ permission: 'bash', pattern: 'git status*', approve: 'model' }, rule]);
    const { session_id, request_id } = await standing(`bash: ${command}`, child);
    const refused = await child.call('respond', { instance: 'worker', request_id, reply: 'once' });
    expect(refused.text).toMatch(/Nothing was answered.*never/);
    expect(await pending()).toContainEqual(expect.objectContaining({ id: request_id }));
    await abort(session_id);
  });

  test('and a rule for the model covers nothing beside its pattern', async () => {
    const child = await withRules([{ permission: 'bash', pattern: 'echo *', approve: 'model' }, { approve: 'never' }]);
    const { session_id } = await standing('bash: > F; echo a', child);
    expect((await child.call('respond', { instance: 'worker', reply: 'once' })).text).toContain('never');
    await abort(session_id);
    await standing('bash: echo a && (echo b | echo "c; d")', child);
    expect(data(await child.call('respond', { instance: 'worker', reply: 'once' }))).toMatchObject({
      outcome: 'completed',
      text: toolReply('bash', 'a\nc; d'),
    });
  });

  const respondWith = async (env: Readonly<Record<string, string>>): Promise<ToolCall> => {
    const child = await stage.server({ env });
    return await child.call('respond', { instance: 'worker', reply: 'once' });
  };

  test('human with a client that cannot ask, and never: refused, with the place to settle it', async () => {
    const { session_id } = await standing('bash: echo who');
    for (const approve of ['human', 'never']) {
      const refused = await respondWith({ OPENCODE_MCP_APPROVE: approve });
      expect(refused.result.isError).toBe(true);
      expect(refused.text).toMatch(/in that opencode/);
    }
    await abort(session_id);
  });

  test('model asks nobody', async () => {
    const { child, messages } = await withPerson([], { OPENCODE_MCP_APPROVE: 'model' });
    await standing('bash: echo modelled', child);
    expect(data(await child.call('respond', { instance: 'worker', reply: 'once' }))).toMatchObject({
      outcome: 'completed',
    });
    expect(messages).toEqual([]);
  });
});

test("instances marks a sub-agent's request as such", async () => {
  await standing('task: bash: echo deep');
  expect(data(await server.call('instances'))).toMatchObject({
    instances: [
      { state: 'waiting', waiting: [expect.stringMatching(/«bash "echo deep"» \(a sub-agent asks\)$/) as string] },
    ],
  });
});

test('a session in another directory of the project belongs to an instance of its own', async () => {
  const elsewhere = join(opencode.directory, 'packages', 'web');
  await mkdir(elsewhere, { recursive: true });
  const { id } = await opencode.json<{ id: string }>('POST', `/session?directory=${encodeURIComponent(elsewhere)}`, {});
  const sent = await server.call('send', { instance: 'worker', session_id: id, message: 'bash: echo elsewhere' });
  expect(data(sent)).toMatchObject({ outcome: 'waiting' });
  const waiting = [expect.stringContaining('«bash "echo elsewhere"»') as string];
  expect(data(await server.call('instances'))).toMatchObject({
    instances: [{ name: 'worker-web', state: 'waiting', waiting, session: { id } }, { name: 'worker' }],
  });
  expect(data(await server.call('get_status', { instance: 'worker-web' }))).toMatchObject({
    state: 'waiting',
    waiting,
  });
  expect(data(await server.call('get_status', { instance: 'worker' }))).toMatchObject({
    state: 'idle',
    waiting: [],
    elsewhere: [expect.stringMatching(/^worker-web: waiting, in /)],
  });
  expect((await server.call('respond', { instance: 'worker', reply: 'reject' })).text).toMatch(
    /worker waits for nothing; .* as worker-web: call again with that instance/,
  );
  expect(data(await server.call('respond', { instance: 'worker-web', reply: 'reject' }))).toMatchObject({
    session: { id },
    outcome: 'completed',
  });
});

test('instances and list_sessions show waiting too', async () => {
  const { session_id } = await standing('bash: rm -rf build');
  const listed = await server.call('instances', { match: 'worker' });
  expect(data(listed)).toMatchObject({
    instances: expect.arrayContaining([
      expect.objectContaining({
        name: 'worker',
        state: 'waiting',
        waiting: [expect.stringContaining('«bash "rm -rf build"»') as string],
      }),
    ]) as unknown,
  });
  expect(listed.text).toMatch(/worker: waiting for permission per_\w+: «bash "rm -rf build"»/);
  expect(data(await server.call('list_sessions', { instance: 'worker' }))).toMatchObject({
    sessions: expect.arrayContaining([expect.objectContaining({ id: session_id, state: 'waiting' })]) as unknown,
  });
  expect(data(await server.call('send', { instance: 'worker', session_id, abort: true }))).toMatchObject({
    aborted: true,
  });
});

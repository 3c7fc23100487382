import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeEach, describe, expect, test } from 'vitest';

import { silentLogger } from '../../../src/base/log.ts';
import type { Core, McpRequest } from '../../../src/mcp/core.ts';
import { Retries } from '../../../src/mcp/modern/retries.ts';
import { StateSealer } from '../../../src/mcp/modern/sealed-state.ts';
import type { ToolCall } from '../../../src/mcp/tool-calls.ts';
import type { Form } from '../../../src/operations/runtime.ts';
import { leapingClock } from '../../rig/leaping-clock.ts';
import { until } from '../../rig/wait.ts';
import { openWorker } from '../worker.ts';
import { type Data, FORMS, ModernClient, TASKS_AND_FORMS } from './modern-client.ts';

const scene = await openWorker();
const { worker } = scene;
const start = (env: Readonly<Record<string, string>> = {}, ...more: readonly string[]): ModernClient =>
  new ModernClient({ leaps: true, args: [...scene.args, ...more], env: { HOME: scene.temp.path, ...env } });
const keyFile = join(scene.temp.path, '.local/state/opencode-mcp/question.key');

let client = start();
let sessionId: string;

afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await scene.close();
});
beforeEach(() => {
  worker.state.permissions.clear();
  worker.state.statuses.clear();
  worker.state.prompts.length = 0;
  sessionId = worker.addSession().id;
});

interface Question {
  readonly key: string;
  readonly params: Data;
  readonly requestState: string;
}

const RESPOND = { instance: 'worker', reply: 'once' };

async function call(name: string, args: Data, more: Data = {}, one = client): Promise<Data> {
  return await one.call(name, args, { capabilities: FORMS }, more);
}

/** The question that ends a call, after the time that a person needs to read it. */
async function questionIn(result: Data): Promise<Question> {
  expect(result).toMatchObject({ resultType: 'input_required' });
  const { inputRequests, requestState } = result as {
    inputRequests: Record<string, { params: Data }>;
    requestState: string;
  };
  const [[key, { params }] = ['', { params: {} }]] = Object.entries(inputRequests);
  await client.server.leap();
  return { key, params, requestState };
}

const answered = ({ key, requestState }: Question, decision = 'once'): Data => ({
  requestState,
  inputResponses: { [key]: { action: 'accept', content: { decision } } },
});

/** A waiting request, and the question of `respond`. */
async function waiting(): Promise<Question> {
  worker.state.begin(sessionId, 'run');
  worker.addPermission({ sessionID: sessionId });
  return await questionIn(await call('respond', RESPOND));
}

/** The result of a call that answers what waits, once its turn has ended. */
async function settles(running: Promise<Data>): Promise<Data> {
  await until('the answer', () => worker.state.permissions.size === 0);
  worker.state.finish(sessionId, 'done');
  return await running;
}

const settled = (words: RegExp) => ({ structuredContent: { settled: expect.stringMatching(words) } });
const failed = (words: RegExp) => ({ isError: true, content: [{ text: expect.stringMatching(words) }] });
const replies = (): number => worker.count('POST /permission/:id/reply');

/** Calls with this state, which must be refused. */
async function expectRefusal(words: RegExp, more: Data, name = 'respond', args: Data = RESPOND): Promise<void> {
  const before = replies();
  const { error } = await client.answer('tools/call', { name, arguments: args, ...more }, { capabilities: FORMS });
  expect(error).toMatchObject({ code: -32_602, message: expect.stringMatching(words) });
  expect(replies()).toBe(before);
}

describe('a question without a task', () => {
  test('ends the call with the exact command; repeating the call with the answer settles it once', async () => {
    const question = await waiting();
    expect(question.params).toMatchObject({ mode: 'form', message: expect.stringContaining('```\nls\n```') });
    const before = replies();
    expect(await settles(call('respond', RESPOND, answered(question)))).toMatchObject({
      resultType: 'complete',
      structuredContent: { text: 'done', settled: expect.stringMatching(/^allowed once/) },
    });
    expect(await call('respond', RESPOND, answered(question))).toMatchObject(failed(/waits for nothing/));
    expect(replies()).toBe(before + 1);
  });

  test('a repeated answer does not answer the next request, even if its text is the same', async () => {
    const question = await waiting();
    worker.state.permissions.clear();
    worker.addPermission({ sessionID: sessionId });
    const before = replies();
    const next = await questionIn(await call('respond', RESPOND, answered(question)));
    expect(next.params).toEqual(question.params);
    expect(next.key).not.toBe(question.key);
    // Nor under the next question's key, which its client may know.
    const mixed = { ...answered(next), requestState: question.requestState };
    expect((await questionIn(await call('respond', RESPOND, mixed))).key).toBe(next.key);
    expect(replies()).toBe(before);
  });

  test('is asked again if its words have changed, or its answer is missing', async () => {
    const question = await waiting();
    const unanswered = { requestState: question.requestState, inputResponses: {} };
    expect((await questionIn(await call('respond', RESPOND, unanswered))).key).toBe(question.key);
    for (const [id, permission] of worker.state.permissions)
      worker.state.permissions.set(id, { ...permission, metadata: { command: 'rm -rf /' } });
    const before = replies();
    const next = await questionIn(await call('respond', RESPOND, answered(question)));
    expect(JSON.stringify(next.params)).toContain('rm -rf /');
    expect(replies()).toBe(before);
  });

  test('takes no answer within 500 ms, and a decline as a no', async () => {
    worker.state.begin(sessionId, 'run');
    worker.addPermission({ sessionID: sessionId });
    const { inputRequests = {}, requestState } = await call('respond', RESPOND);
    const [key = ''] = Object.keys(inputRequests as object);
    const early = answered({ key, params: {}, requestState: String(requestState) });
    expect(await call('respond', RESPOND, early)).toMatchObject(failed(/within 500 ms/));
    const again = await questionIn(await call('respond', RESPOND));
    const declined = { requestState: again.requestState, inputResponses: { [again.key]: { action: 'decline' } } };
    expect(await settles(call('respond', RESPOND, declined))).toMatchObject(settled(/^rejected/));
  });

  test('refuses a state that is an hour old, or of the future', async () => {
    const question = await waiting();
    const sealer = new StateSealer(await readFile(keyFile));
    const state = sealer.open(question.requestState);
    if (state === undefined) throw new Error('the state is not sealed with that key');
    for (const ageMs of [3_600_001, -60_000]) {
      const requestState = sealer.seal({ ...state, askedAtMs: state.askedAtMs - ageMs });
      await expectRefusal(/too old/, { ...answered(question), requestState });
    }
  });

  // `sealed-state.test.ts` changes each of its characters.
  test('refuses a changed state and one of another call; the order of arguments does not matter', async () => {
    const state = answered(await waiting());
    for (const requestState of [`${String(state['requestState'])}.x`, ''])
      await expectRefusal(/nothing was done/, { ...state, requestState });
    await expectRefusal(/nothing was done/, state, 'respond', { ...RESPOND, reply: 'always' });
    await expectRefusal(/nothing was done/, state, 'wait', { instances: ['worker'] });
    expect(await settles(call('respond', { reply: 'once', instance: 'worker' }, state))).toMatchObject(settled(/once/));
  });

  test('has its key in a file for its owner only, and the next process takes the answer', async () => {
    const question = await waiting();
    expect([(await stat(keyFile)).mode & 0o777, (await readFile(keyFile)).length]).toEqual([0o600, 32]);
    await client[Symbol.asyncDispose]();
    client = start();
    expect(await settles(call('respond', RESPOND, answered(question)))).toMatchObject(settled(/^allowed once/));
  });

  test.each(['human', 'ask'])(
    'is not asked, and allows nothing, if no key can be saved (approve: %s)',
    async (approve) => {
      const noFolder = join(scene.registry.path, 'worker.json');
      await using one = start({ XDG_STATE_HOME: noFolder }, '--approve', approve);
      worker.state.begin(sessionId, 'run');
      worker.addPermission({ sessionID: sessionId });
      const before = replies();
      expect(await call('respond', RESPOND, {}, one)).toMatchObject(
        failed(/could not ask the person .* cannot be saved/),
      );
      expect(replies()).toBe(before);
      expect(one.server.stderr).toMatch(/cannot save the key that seals their answers/);
    },
  );
});

describe('a send that comes to a question', () => {
  const send = (): Data => ({ instance: 'worker', session_id: sessionId, message: 'run' });

  async function asked(): Promise<Question> {
    const first = call('send', send());
    await until('the turn', () => worker.state.prompts.length === 1 && worker.openStreams === 1);
    worker.state.say(sessionId, 'begun ');
    worker.addPermission({ sessionID: sessionId });
    return await questionIn(await first);
  }

  test('continues with the answer, and its message is sent once', async () => {
    const question = await asked();
    const second = call('send', send(), answered(question));
    await until('the answer', () => worker.state.permissions.size === 0);
    worker.addPermission({ sessionID: sessionId, patterns: ['pwd'], metadata: { command: 'pwd' } });
    const next = await questionIn(await second);
    expect(next.key).not.toBe(question.key);
    expect(await settles(call('send', send(), answered(next, 'reject')))).toMatchObject({
      resultType: 'complete',
      structuredContent: { outcome: 'completed', text: 'begun done', settled: expect.stringMatching(/^rejected/) },
    });
    expect(worker.state.prompts).toHaveLength(1);
  });

  test.each([
    ['tasks as well', TASKS_AND_FORMS],
    ['no capability', {}],
  ])('is the same send if the repeated call declares %s', async (_, capabilities) => {
    const question = await asked();
    worker.state.permissions.clear();
    worker.state.finish(sessionId, 'done');
    expect(await client.call('send', send(), { capabilities }, answered(question))).toMatchObject({
      resultType: 'complete',
      structuredContent: { outcome: 'completed', text: 'begun done' },
    });
    expect(worker.state.prompts).toHaveLength(1);
  });
});

test('a call that only reads writes no file, whatever its client can show', async () => {
  await using one = new ModernClient({ args: scene.args });
  expect(await call('instances', {}, {}, one)).toMatchObject({ structuredContent: { total: 1 } });
  expect(await readdir(one.server.home)).toEqual(['tmp']);
});

test('a client that shows no forms is asked nothing: the result names the waiting request', async () => {
  worker.state.begin(sessionId, 'run');
  worker.addPermission({ sessionID: sessionId });
  for (const capabilities of [{}, { elicitation: { url: {} } }])
    expect(await client.call('wait', { instances: ['worker'] }, { capabilities })).toMatchObject({
      resultType: 'complete',
      structuredContent: { turns: [{ outcome: 'waiting' }] },
    });
});

test('an answer is taken once: the same question again ends the call', async () => {
  const form: Form = { id: 'per_1', about: 'ls', message: 'ls?', fields: {}, required: [] };
  const tools = {
    run: async (_: ToolCall, { askPerson, signal }: McpRequest) => {
      for (let times = 0; times < 2; times += 1) await askPerson?.(form, { signal, timeoutMs: 1 });
      return { resultType: 'complete' };
    },
  };
  const core = { tools, clock: leapingClock(), stateDir: join(scene.temp.path, 'once'), logger: silentLogger };
  const retries = new Retries(core as unknown as Core);
  const request = { signal: new AbortController().signal, deadlineMs: 1, client: undefined };
  const run = async (params: Data): Promise<Data> =>
    (await retries.run({ tool: { name: 'respond' }, args: {} } as ToolCall, request, params, true)) as Data;
  const { inputRequests = {}, requestState } = await run({});
  const [key = ''] = Object.keys(inputRequests as object);
  const answer = answered({ key, params: {}, requestState: String(requestState) });
  expect(await run(answer)).toMatchObject({ resultType: 'input_required', inputRequests });
});

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
const startClient = (env: Readonly<Record<string, string>> = {}, ...more: readonly string[]): ModernClient =>
  new ModernClient({ leaps: true, args: [...scene.args, ...more], env: { HOME: scene.temp.path, ...env } });
const keyFile = join(scene.temp.path, '.local/state/opencode-mcp/question.key');

let client = startClient();
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

async function call(name: string, args: Data, more: Data = {}, from = client): Promise<Data> {
  return await from.call(name, args, { capabilities: FORMS }, more);
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

const answerTo = ({ key, requestState }: Question, decision = 'once'): Data => ({
  requestState,
  inputResponses: { [key]: { action: 'accept', content: { decision } } },
});

/** Adds a permission request, and returns the question of `respond`. */
async function askQuestion(): Promise<Question> {
  worker.state.begin(sessionId, 'run');
  worker.addPermission({ sessionID: sessionId });
  return await questionIn(await call('respond', RESPOND));
}

/** Waits for the answer, ends the turn, and returns the result of the call. */
async function finishTurn(running: Promise<Data>): Promise<Data> {
  await until('the answer', () => worker.state.permissions.size === 0);
  worker.state.finish(sessionId, 'done');
  return await running;
}

const settledWith = (message: RegExp) => ({ structuredContent: { settled: expect.stringMatching(message) } });
const failedWith = (message: RegExp) => ({ isError: true, content: [{ text: expect.stringMatching(message) }] });
const replies = (): number => worker.count('POST /permission/:id/reply');

/** Expects that the call is refused and nothing is answered. */
async function expectRefusal(message: RegExp, more: Data, name = 'respond', args: Data = RESPOND): Promise<void> {
  const before = replies();
  const { error } = await client.answer('tools/call', { name, arguments: args, ...more }, { capabilities: FORMS });
  expect(error).toMatchObject({ code: -32_602, message: expect.stringMatching(message) });
  expect(replies()).toBe(before);
}

describe('a question without a task', () => {
  test('ends the call with the exact command; repeating the call with the answer settles it once', async () => {
    const question = await askQuestion();
    expect(question.params).toMatchObject({ mode: 'form', message: expect.stringContaining('```\nls\n```') });
    const before = replies();
    expect(await finishTurn(call('respond', RESPOND, answerTo(question)))).toMatchObject({
      resultType: 'complete',
      structuredContent: { text: 'done', settled: expect.stringMatching(/^allowed once/) },
    });
    expect(await call('respond', RESPOND, answerTo(question))).toMatchObject(failedWith(/waits for nothing/));
    expect(replies()).toBe(before + 1);
  });

  test('a repeated answer does not answer the next request, even if its text is the same', async () => {
    const question = await askQuestion();
    worker.state.permissions.clear();
    worker.addPermission({ sessionID: sessionId });
    const before = replies();
    const next = await questionIn(await call('respond', RESPOND, answerTo(question)));
    expect(next.params).toEqual(question.params);
    expect(next.key).not.toBe(question.key);
    // The old state is not accepted under the key of the next question either.
    const mixed = { ...answerTo(next), requestState: question.requestState };
    expect((await questionIn(await call('respond', RESPOND, mixed))).key).toBe(next.key);
    expect(replies()).toBe(before);
  });

  test('is asked again if its text has changed, or its answer is missing', async () => {
    const question = await askQuestion();
    const unanswered = { requestState: question.requestState, inputResponses: {} };
    expect((await questionIn(await call('respond', RESPOND, unanswered))).key).toBe(question.key);
    for (const [id, permission] of worker.state.permissions)
      worker.state.permissions.set(id, { ...permission, metadata: { command: 'rm -rf /' } });
    const before = replies();
    const next = await questionIn(await call('respond', RESPOND, answerTo(question)));
    expect(JSON.stringify(next.params)).toContain('rm -rf /');
    expect(replies()).toBe(before);
  });

  test('accepts no answer within 500 ms, and treats a decline as a rejection', async () => {
    worker.state.begin(sessionId, 'run');
    worker.addPermission({ sessionID: sessionId });
    const { inputRequests = {}, requestState } = await call('respond', RESPOND);
    const [key = ''] = Object.keys(inputRequests as object);
    const early = answerTo({ key, params: {}, requestState: String(requestState) });
    expect(await call('respond', RESPOND, early)).toMatchObject(failedWith(/within 500 ms/));
    const again = await questionIn(await call('respond', RESPOND));
    const declined = { requestState: again.requestState, inputResponses: { [again.key]: { action: 'decline' } } };
    expect(await finishTurn(call('respond', RESPOND, declined))).toMatchObject(settledWith(/^rejected/));
  });

  test('refuses a state that is an hour old, or from the future', async () => {
    const question = await askQuestion();
    const sealer = new StateSealer(await readFile(keyFile));
    const state = sealer.open(question.requestState);
    if (state === undefined) throw new Error('the state is not sealed with that key');
    for (const ageMs of [3_600_001, -60_000]) {
      const requestState = sealer.seal({ ...state, askedAtMs: state.askedAtMs - ageMs });
      await expectRefusal(/too old/, { ...answerTo(question), requestState });
    }
  });

  // `sealed-state.test.ts` tests a change of each character.
  test('refuses a changed state and the state of another call; the order of arguments does not matter', async () => {
    const state = answerTo(await askQuestion());
    for (const requestState of [`${String(state['requestState'])}.x`, ''])
      await expectRefusal(/nothing was done/, { ...state, requestState });
    await expectRefusal(/nothing was done/, state, 'respond', { ...RESPOND, reply: 'always' });
    await expectRefusal(/nothing was done/, state, 'wait', { instances: ['worker'] });
    expect(await finishTurn(call('respond', { reply: 'once', instance: 'worker' }, state))).toMatchObject(
      settledWith(/once/),
    );
  });

  test('has its key in a file that only its owner can read, and the next process accepts the answer', async () => {
    const question = await askQuestion();
    expect([(await stat(keyFile)).mode & 0o777, (await readFile(keyFile)).length]).toEqual([0o600, 32]);
    await client[Symbol.asyncDispose]();
    client = startClient();
    expect(await finishTurn(call('respond', RESPOND, answerTo(question)))).toMatchObject(settledWith(/^allowed once/));
  });

  test.each(['human', 'ask'])(
    'is not asked, and allows nothing, if no key can be saved (approve: %s)',
    async (approve) => {
      const noFolder = join(scene.registry.path, 'worker.json');
      await using ownClient = startClient({ XDG_STATE_HOME: noFolder }, '--approve', approve);
      worker.state.begin(sessionId, 'run');
      worker.addPermission({ sessionID: sessionId });
      const before = replies();
      expect(await call('respond', RESPOND, {}, ownClient)).toMatchObject(
        failedWith(/could not ask the person .* cannot be saved/),
      );
      expect(replies()).toBe(before);
      expect(ownClient.server.stderr).toMatch(/cannot save the key that seals their answers/);
    },
  );
});

describe('a send that leads to a question', () => {
  const send = (): Data => ({ instance: 'worker', session_id: sessionId, message: 'run' });

  async function askDuringSend(): Promise<Question> {
    const first = call('send', send());
    await until('the turn', () => worker.state.prompts.length === 1 && worker.openStreams === 1);
    worker.state.say(sessionId, 'begun ');
    worker.addPermission({ sessionID: sessionId });
    return await questionIn(await first);
  }

  test('continues with the answer, and its message is sent once', async () => {
    const question = await askDuringSend();
    const second = call('send', send(), answerTo(question));
    await until('the answer', () => worker.state.permissions.size === 0);
    worker.addPermission({ sessionID: sessionId, patterns: ['pwd'], metadata: { command: 'pwd' } });
    const next = await questionIn(await second);
    expect(next.key).not.toBe(question.key);
    expect(await finishTurn(call('send', send(), answerTo(next, 'reject')))).toMatchObject({
      resultType: 'complete',
      structuredContent: { outcome: 'completed', text: 'begun done', settled: expect.stringMatching(/^rejected/) },
    });
    expect(worker.state.prompts).toHaveLength(1);
  });

  test.each([
    ['tasks as well', TASKS_AND_FORMS],
    ['no capability', {}],
  ])('is the same send if the repeated call declares %s', async (_, capabilities) => {
    const question = await askDuringSend();
    worker.state.permissions.clear();
    worker.state.finish(sessionId, 'done');
    expect(await client.call('send', send(), { capabilities }, answerTo(question))).toMatchObject({
      resultType: 'complete',
      structuredContent: { outcome: 'completed', text: 'begun done' },
    });
    expect(worker.state.prompts).toHaveLength(1);
  });
});

test('a call that only reads writes no file, whatever its client supports', async () => {
  await using ownClient = new ModernClient({ args: scene.args });
  expect(await call('instances', {}, {}, ownClient)).toMatchObject({ structuredContent: { total: 1 } });
  expect(await readdir(ownClient.server.home)).toEqual(['tmp']);
});

test('a client without forms is asked nothing: the result names the waiting request', async () => {
  worker.state.begin(sessionId, 'run');
  worker.addPermission({ sessionID: sessionId });
  for (const capabilities of [{}, { elicitation: { url: {} } }])
    expect(await client.call('wait', { instances: ['worker'] }, { capabilities })).toMatchObject({
      resultType: 'complete',
      structuredContent: { turns: [{ outcome: 'waiting' }] },
    });
});

test('an answer is used once: a second identical question ends the call', async () => {
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
  const answer = answerTo({ key, params: {}, requestState: String(requestState) });
  expect(await run(answer)).toMatchObject({ resultType: 'input_required', inputRequests });
});

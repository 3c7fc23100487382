import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { StateSealer } from '../../../src/mcp/modern/sealed-state.ts';
import { type FakeOpencode, startFakeOpencode } from '../../rig/fake-opencode.ts';
import { openRegistry, type Registry } from '../../rig/registry.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';
import { until } from '../../rig/wait.ts';
import { type Data, FORMS, ModernClient, TASKS_AND_FORMS } from './modern-client.ts';

let temp: TempDir;
let registry: Registry;
let worker: FakeOpencode;
let client: ModernClient;
let sessionId: string;

const start = (env: Readonly<Record<string, string>> = {}, ...more: readonly string[]): ModernClient =>
  new ModernClient({
    args: ['--registry-dir', registry.path, '--health-timeout-ms', '15000', ...more],
    env: { HOME: temp.path, ...env },
  });

beforeAll(async () => {
  temp = tempDir('modern-retries');
  registry = await openRegistry(`${temp.path}/registry`);
  worker = await startFakeOpencode();
  await registry.add({ name: 'worker', port: worker.port, cwd: worker.directory });
  client = start();
});
afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await worker.close();
  await temp.close();
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

/** The question at the end of a call, after the moment that a person needs to read it. */
function questionIn(result: Data): Question {
  expect(result).toMatchObject({ resultType: 'input_required' });
  const { inputRequests, requestState } = result as {
    inputRequests: Record<string, { params: Data }>;
    requestState: string;
  };
  const [[key, { params }] = ['', { params: {} }]] = Object.entries(inputRequests);
  return { key, params, requestState };
}

async function aMoment(): Promise<void> {
  const fromMs = Date.now();
  await until('a moment to pass', async () => Date.now() - fromMs > 550);
}

const answered = ({ key, requestState }: Question, decision = 'once'): Data => ({
  requestState,
  inputResponses: { [key]: { action: 'accept', content: { decision } } },
});

/** A waiting request, and the question of `respond`. */
async function waiting(args: Data = RESPOND): Promise<Question> {
  worker.state.begin(sessionId, 'run');
  worker.addPermission({ sessionID: sessionId });
  return questionIn(await call('respond', args));
}

const replies = (): number => worker.count('POST /permission/:id/reply');

describe('a question without a task', () => {
  test('ends the call with the exact command; repeating it with the answer settles it, and a replay finds it settled', async () => {
    const question = await waiting();
    expect(question.params).toMatchObject({ mode: 'form', message: expect.stringContaining('```\nls\n```') as string });
    await aMoment();
    const before = replies();
    const running = call('respond', RESPOND, answered(question));
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.state.finish(sessionId, 'done');
    expect(await running).toMatchObject({
      resultType: 'complete',
      structuredContent: { text: 'done', settled: expect.stringMatching(/^allowed once/) as string },
    });
    expect(await call('respond', RESPOND, answered(question))).toMatchObject({
      isError: true,
      content: [{ text: expect.stringMatching(/waits for nothing/) as string }],
    });
    expect(replies()).toBe(before + 1);
  });

  test('a replay does not answer the next request, even if its text is the same', async () => {
    const question = await waiting();
    await aMoment();
    worker.state.permissions.clear();
    worker.addPermission({ sessionID: sessionId });
    const before = replies();
    const next = questionIn(await call('respond', RESPOND, answered(question)));
    expect(next.params).toEqual(question.params);
    expect(next.key).not.toBe(question.key);
    // Nor under the next question's key, which its client may know.
    const mixed = { ...answered(next), requestState: question.requestState };
    expect(questionIn(await call('respond', RESPOND, mixed)).key).toBe(next.key);
    expect(replies()).toBe(before);
  });

  test('an answer to other words than are asked by now asks again', async () => {
    const question = await waiting();
    await aMoment();
    const [[id, permission] = ['', undefined]] = [...worker.state.permissions];
    if (permission === undefined) throw new Error('no permission');
    worker.state.permissions.set(id, { ...permission, metadata: { command: 'rm -rf /' } });
    const before = replies();
    const next = questionIn(await call('respond', RESPOND, answered(question)));
    expect(JSON.stringify(next.params)).toContain('rm -rf /');
    expect(replies()).toBe(before);
  });

  test('without an answer to it, it is asked again', async () => {
    const question = await waiting();
    const again = questionIn(
      await call('respond', RESPOND, { requestState: question.requestState, inputResponses: {} }),
    );
    expect(again.key).toBe(question.key);
  });

  test('an answer within 500 ms is no person’s; a decline is a no', async () => {
    const question = await waiting();
    expect(await call('respond', RESPOND, answered(question))).toMatchObject({
      isError: true,
      content: [{ text: expect.stringMatching(/within 500 ms/) as string }],
    });
    const again = questionIn(await call('respond', RESPOND));
    await aMoment();
    const declined = { requestState: again.requestState, inputResponses: { [again.key]: { action: 'decline' } } };
    const running = call('respond', RESPOND, declined);
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.state.finish(sessionId, 'done');
    expect(await running).toMatchObject({
      structuredContent: { settled: expect.stringMatching(/^rejected/) as string },
    });
  });

  test.each<readonly [string, (state: string) => string]>([
    ['cut', (state) => state.slice(0, -1)],
    ['with another mark', (state) => `${state.split('.')[0]}.${'A'.repeat(43)}`],
    ['with other words', (state) => `${Buffer.from('{"call":"x"}').toString('base64url')}.${state.split('.')[1]}`],
    ['longer', (state) => `${state}.x`],
    ['nothing', () => ''],
  ])('a state that is %s is refused', async (_, change) => {
    const question = await waiting();
    const before = replies();
    const params = {
      name: 'respond',
      arguments: RESPOND,
      ...answered(question),
      requestState: change(question.requestState),
    };
    const { error } = await client.answer('tools/call', params, { capabilities: FORMS });
    expect(error).toMatchObject({ code: -32_602, message: expect.stringMatching(/nothing was done/) as string });
    expect(replies()).toBe(before);
  });

  test('a state that is an hour old, or of the future, is refused', async () => {
    const question = await waiting();
    const sealer = new StateSealer(await readFile(join(temp.path, '.local/state/opencode-mcp/question.key')));
    const state = sealer.open(question.requestState);
    if (state === undefined) throw new Error('it is none');
    for (const ageMs of [3_600_001, -60_000]) {
      const requestState = sealer.seal({ ...state, askedAtMs: Date.now() - ageMs });
      const params = { name: 'respond', arguments: RESPOND, ...answered(question), requestState };
      const { error } = await client.answer('tools/call', params, { capabilities: FORMS });
      expect(error).toMatchObject({ code: -32_602, message: expect.stringMatching(/too old/) as string });
    }
    expect(worker.state.permissions.size).toBe(1);
  });

  test('a state of another tool or other arguments is refused; in another order they are the same', async () => {
    const question = await waiting();
    await aMoment();
    const state = answered(question);
    for (const [name, args] of [
      ['respond', { ...RESPOND, reply: 'always' }],
      ['wait', { instances: ['worker'] }],
    ] as const) {
      const { error } = await client.answer('tools/call', { name, arguments: args, ...state }, { capabilities: FORMS });
      expect(error?.code).toBe(-32_602);
    }
    const running = call('respond', { reply: 'once', instance: 'worker' }, state);
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.state.finish(sessionId, 'done');
    await running;
  });

  test('the key lies in a file of the person’s own, and the next process takes what the one before asked', async () => {
    const question = await waiting();
    const path = join(temp.path, '.local/state/opencode-mcp/question.key');
    expect([(await stat(path)).mode & 0o777, (await readFile(path)).length]).toEqual([0o600, 32]);
    await aMoment();
    await client[Symbol.asyncDispose]();
    client = start();
    const running = call('respond', RESPOND, answered(question));
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.state.finish(sessionId, 'done');
    expect(await running).toMatchObject({ structuredContent: { outcome: 'completed' } });
  });

  test.each(['human', 'ask'])(
    'where no key can be kept nobody is asked, and nothing is allowed (approve: %s)',
    async (approve) => {
      await writeFile(join(temp.path, 'no folder'), '');
      await using one = start({ XDG_STATE_HOME: join(temp.path, 'no folder') }, '--approve', approve);
      worker.state.begin(sessionId, 'run');
      worker.addPermission({ sessionID: sessionId });
      const before = replies();
      expect(await call('respond', RESPOND, {}, one)).toMatchObject({
        isError: true,
        content: [{ text: expect.stringMatching(/could not ask the person .* cannot be saved/) as string }],
      });
      expect(replies()).toBe(before);
      expect(one.server.stderr).toMatch(/cannot save the key that seals their answers/);
    },
  );
});

describe('a send that comes to a question', () => {
  test('goes on with the answer, and its message is sent once', async () => {
    const args = { instance: 'worker', session_id: sessionId, message: 'run' };
    const first = call('send', args);
    await until('the turn', () => worker.state.prompts.length === 1 && worker.openStreams === 1);
    worker.state.say(sessionId, 'begun ');
    worker.addPermission({ sessionID: sessionId });
    const question = questionIn(await first);
    await aMoment();
    const second = call('send', args, answered(question));
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.addPermission({ sessionID: sessionId, patterns: ['pwd'], metadata: { command: 'pwd' } });
    const next = questionIn(await second);
    expect(next.key).not.toBe(question.key);
    await aMoment();
    const third = call('send', args, answered(next, 'reject'));
    await until('it to be settled', () => worker.state.permissions.size === 0);
    worker.state.finish(sessionId, 'and done');
    expect(await third).toMatchObject({
      resultType: 'complete',
      structuredContent: {
        outcome: 'completed',
        text: 'begun and done',
        settled: expect.stringMatching(/^rejected/) as string,
      },
    });
    expect(worker.state.prompts).toHaveLength(1);
  });

  test.each<readonly [string, Data]>([
    ['tasks as well', TASKS_AND_FORMS],
    ['nothing any more', {}],
  ])('is the same send where the repeated call declares %s', async (_, capabilities) => {
    const args = { instance: 'worker', session_id: sessionId, message: 'run' };
    const first = call('send', args);
    await until('the turn', () => worker.state.prompts.length === 1 && worker.openStreams === 1);
    worker.addPermission({ sessionID: sessionId });
    const question = questionIn(await first);
    worker.state.permissions.clear();
    worker.state.finish(sessionId, 'done');
    const again = await client.call('send', args, { capabilities }, answered(question));
    expect(again).toMatchObject({ resultType: 'complete', structuredContent: { outcome: 'completed', text: 'done' } });
    expect(worker.state.prompts).toHaveLength(1);
  });
});

test('a call that only looks leaves nothing behind, whatever its client shows', async () => {
  await using one = new ModernClient({ args: ['--registry-dir', registry.path] });
  expect(await call('instances', {}, {}, one)).toMatchObject({ structuredContent: { total: 1 } });
  expect(await readdir(one.server.home)).toEqual(['tmp']);
});

test('a client that shows no forms is asked nothing: the call says what waits', async () => {
  worker.state.begin(sessionId, 'run');
  worker.addPermission({ sessionID: sessionId });
  for (const capabilities of [{}, { elicitation: { url: {} } }])
    expect(await client.call('wait', { instances: ['worker'] }, { capabilities })).toMatchObject({
      resultType: 'complete',
      structuredContent: { turns: [{ outcome: 'waiting' }] },
    });
});

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startFaultProxy } from '../rig/fault-proxy.ts';
import { expectedReply } from '../rig/model-script.ts';
import { OPENCODES, isMissing, PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { openStage, type Stage } from './stage.ts';

const waitingFor = (text: string): Record<string, unknown> => ({
  outcome: 'waiting',
  waiting: [expect.stringContaining(`«${text}»`) as string],
});
const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};
const idOf = (call: ToolCall): string => (data(call)['session'] as { id: string }).id;
const PROMPT = { method: 'POST', path: /\/prompt_async$/ } as const;

describe.each(OPENCODES)('turns on the $name', ({ binary }) => {
  describe.skipIf(isMissing(binary))('', () => {
    let stage: Stage;
    let opencode: Opencode;
    let server: McpChild;
    let count = 0;

    beforeAll(async () => {
      stage = await openStage();
      opencode = await stage.opencode({ binary });
      await stage.register('worker', opencode);
      server = await stage.server();
    });
    afterAll(() => stage.close());

    /** A session for each test: no leftovers of others. */
    async function newSession(instance = 'worker'): Promise<string> {
      count += 1;
      return idOf(await server.call('create_session', { instance, title: `turns ${count}` }));
    }

    async function userTexts(session: string): Promise<string[]> {
      const messages = await opencode.json<{ info: { role: string }; parts: { type: string; text?: string }[] }[]>(
        'GET',
        `/session/${session}/message`,
      );
      return messages
        .filter(({ info }) => info.role === 'user')
        .flatMap(({ parts }) => parts.map(({ text }) => text ?? ''));
    }

    test('ten fast turns in a row: each arrives exactly once', async () => {
      const session_id = await newSession();
      for (let i = 0; i < 10; i++) {
        const sent = await server.call('send', { instance: 'worker', session_id, message: `echo: fast ${i}` });
        expect(data(sent)).toMatchObject({ outcome: 'completed', text: `fast ${i}` });
        expect(sent.progress.map(({ message }) => message ?? '').join('')).toMatch(new RegExp(`^(fast ${i})?$`));
      }
      expect(await userTexts(session_id)).toEqual(Array.from({ length: 10 }, (_, i) => `echo: fast ${i}`));
    });

    test('a model that fails for good: failed, with its message', async () => {
      const session_id = await newSession();
      const sent = await server.call('send', { instance: 'worker', session_id, message: 'fail 401' });
      expect(data(sent)).toMatchObject({
        outcome: 'failed',
        reason: expect.stringContaining('scripted failure 401') as string,
      });
    });

    test('an overloaded model: retrying, in send at its deadline and in get_status', async () => {
      const session_id = await newSession();
      const brief = await stage.server({ env: { SEND_TIMEOUT_MS: '6000' } });
      const sent = await brief.call('send', { instance: 'worker', session_id, message: 'fail 500' });
      expect(data(sent)).toMatchObject({ outcome: 'retrying', reason: expect.stringContaining('attempt') as string });
      expect(sent.text).toContain(`session_id ${session_id}`);
      const { sessions } = data(await server.call('get_status', { instance: 'worker' })) as { sessions: unknown[] };
      expect(sessions).toContainEqual(expect.objectContaining({ id: session_id, state: 'retrying' }));
      await server.call('abort_session', { instance: 'worker', session_id });
    });

    test('a message from another client does not hide a turn that waits for a permission', async () => {
      const session_id = await newSession();
      const told = waitingFor('bash "echo hidden"');
      expect(
        data(await server.call('send', { instance: 'worker', session_id, message: 'bash: echo hidden' })),
      ).toMatchObject(told);
      await opencode.request('POST', `/session/${session_id}/prompt_async`, {
        parts: [{ type: 'text', text: 'echo: another client' }],
      });
      const waited = server.call('wait', { instances: ['worker'], session_id, timeout_seconds: 60 });
      expect(data(await waited)).toMatchObject({ turns: [told] });
      expect(data(await server.call('read', { instance: 'worker', session_id }))).toMatchObject({
        messages: [{ role: 'user' }, { role: 'assistant', state: 'streaming' }, { text: 'echo: another client' }],
      });
      await server.call('respond', { instance: 'worker', reply: 'once' });
    });

    test("a send ends with its own turn, though another client's turn runs on", async () => {
      const session_id = await newSession();
      const [own, other] = [`own-${session_id}`, `other-${session_id}`];
      const sent = server.call('send', { instance: 'worker', session_id, message: `gate-mid ${own}: half |whole` });
      await stage.model.waitForGate(own);
      await opencode.request('POST', `/session/${session_id}/prompt_async`, {
        parts: [{ type: 'text', text: `gate-mid ${other}: never |ends` }],
      });
      stage.model.release(own);
      await stage.model.waitForGate(other);
      expect(data(await sent)).toMatchObject({ outcome: 'completed', text: 'half whole' });
      expect(Object.keys(await opencode.json<object>('GET', '/session/status'))).toContain(session_id);
      await server.call('abort_session', { instance: 'worker', session_id });
    });

    test('a turn that stops for a permission returns with it; answered, read shows the end', async () => {
      const session_id = await newSession();
      const sent = await server.call('send', { instance: 'worker', session_id, message: 'bash: echo permitted' });
      expect(data(sent)).toMatchObject(waitingFor('bash "echo permitted"'));
      expect(data(await server.call('read', { instance: 'worker', session_id }))).toMatchObject({
        waiting: [expect.stringContaining('«bash "echo permitted"»') as string],
      });
      const [request] = await opencode.json<{ id: string }[]>('GET', '/permission');
      await opencode.request('POST', `/permission/${request?.id}/reply`, { reply: 'once' });
      await server.call('send', { instance: 'worker', session_id, message: 'echo: after' });
    });

    test("a sub-agent's permission request stops the turn too", async () => {
      const session_id = await newSession();
      const sent = await server.call('send', {
        instance: 'worker',
        session_id,
        message: 'task: bash: echo from below',
      });
      expect(data(sent)).toMatchObject(waitingFor('bash "echo from below"'));
      await server.call('abort_session', { instance: 'worker', session_id });
    });

    test('a question stops the turn, with its options', async () => {
      const session_id = await newSession();
      const sent = await server.call('send', { instance: 'worker', session_id, message: 'ask: Which color?|Red|Blue' });
      expect(data(sent)).toMatchObject(waitingFor('Which color? Red | Blue'));
      await server.call('abort_session', { instance: 'worker', session_id });
    });

    test('somebody else aborts the turn: aborted', async () => {
      const session_id = await newSession();
      const sending = server.call('send', { instance: 'worker', session_id, message: 'gate-mid others: half |never' });
      await stage.model.waitForGate('others');
      await opencode.request('POST', `/session/${session_id}/abort`);
      expect(data(await sending)).toMatchObject({ outcome: 'aborted' });
    });

    test('a response that is lost after the prompt was accepted: followed, not sent again', async () => {
      const proxy = await startFaultProxy(opencode.url);
      await stage.register('behind-proxy', opencode, { port: proxy.port });
      try {
        await server.call('refresh_instances');
        const session_id = await newSession('behind-proxy');
        proxy.rule(PROMPT, { kind: 'lose-response' }, 1);
        const sent = await server.call('send', {
          instance: 'behind-proxy',
          session_id,
          message: 'echo: accepted once',
        });
        expect(data(sent)).toMatchObject({ outcome: 'completed', text: 'accepted once' });
        expect(proxy.count(PROMPT)).toBe(1);
        expect(await userTexts(session_id)).toEqual(['echo: accepted once']);

        // Cut before it arrived: sent again, but only once in the session.
        proxy.rule(PROMPT, { kind: 'cut-request' }, 1);
        const again = await server.call('send', { instance: 'behind-proxy', session_id, message: 'echo: cut once' });
        expect(data(again)).toMatchObject({ outcome: 'completed', text: 'cut once' });
        expect(await userTexts(session_id)).toEqual(['echo: accepted once', 'echo: cut once']);
        expect(stage.model.turns('echo: cut once')).toBe(1);
      } finally {
        await stage.registry.remove('behind-proxy');
        await proxy.close();
      }
    });

    test('an event stream that is cut in the middle of a turn: the text comes whole and once', async () => {
      const proxy = await startFaultProxy(opencode.url);
      await stage.register('cut-stream', opencode, { port: proxy.port });
      try {
        await server.call('refresh_instances');
        const session_id = await newSession('cut-stream');
        const message = 'gate-mid cut: the first half, |the second half';
        const sending = server.call('send', { instance: 'cut-stream', session_id, message });
        await stage.model.waitForGate('cut');
        await expect.poll(() => proxy.cutStreams(), { timeout: 20_000 }).toBeGreaterThan(0);
        stage.model.release('cut');
        const sent = await sending;
        expect(data(sent)).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
        expect(expectedReply(message)).toContain(sent.progress.map(({ message: text }) => text ?? '').join(''));
      } finally {
        await stage.registry.remove('cut-stream');
        await proxy.close();
      }
    });

    test('two sends to one session at once: one runs, the other is busy; no answer is shared', async () => {
      const session_id = await newSession();
      const calls = ['a', 'b'].map((name) =>
        server.call('send', { instance: 'worker', session_id, message: `slow 5 100: ${name} ` }),
      );
      const outcomes = (await Promise.all(calls)).map((call) =>
        call.result.isError === true ? 'error' : data(call)['outcome'],
      );
      expect(outcomes).toHaveLength(2);
      expect(outcomes).toEqual(expect.arrayContaining(['completed', 'error']));
      expect(await userTexts(session_id)).toHaveLength(1);
    });

    test('kill -9 in the middle of a turn, restarted at the same port: interrupted, and it can go on', async () => {
      const session_id = await newSession();
      const sending = server.call('send', { instance: 'worker', session_id, message: 'gate-mid kill: half |never' });
      await stage.model.waitForGate('kill');
      await opencode.kill('SIGKILL');
      await opencode.restart();
      const sent = await sending;
      expect(data(sent)).toMatchObject({ outcome: 'interrupted' });
      expect(data(await server.call('read', { instance: 'worker', session_id }))).toMatchObject({
        session: { state: 'interrupted' },
      });
      expect(data(await server.call('get_status', { instance: 'worker' }))).toMatchObject({
        state: 'interrupted',
        sessions: [{ id: session_id, state: 'interrupted' }],
      });
      for (const tool of ['instances', 'list_instances'])
        expect(data(await server.call(tool))).toMatchObject({ instances: [{ name: 'worker', state: 'interrupted' }] });
      expect(data(await server.call('list_sessions', { instance: 'worker' }))).toMatchObject({
        sessions: expect.arrayContaining([expect.objectContaining({ id: session_id, state: 'interrupted' })]),
      });
      const after = await server.call('send', { instance: 'worker', session_id, message: 'echo: back' });
      expect(data(after)).toMatchObject({ outcome: 'completed', text: 'back' });
    });

    // A closed port looks the same whichever version was there.
    const inOne = test.skipIf(binary !== PINNED_OPENCODE);
    inOne('killed in the middle of a turn and gone: unknown within the limit, and offline', async () => {
      const session_id = await newSession();
      const sending = server.call('send', { instance: 'worker', session_id, message: 'gate-mid gone: half |never' });
      await stage.model.waitForGate('gone');
      await opencode.kill('SIGKILL');
      const sent = await sending;
      expect(sent.result.isError).toBe(true);
      expect(sent.text).toMatch(/it is unknown whether.*ECONNREFUSED.*Look before sending it again/s);
      expect(data(await server.call('instances'))).toMatchObject({ instances: [{ name: 'worker', state: 'offline' }] });
      await opencode.restart();
      expect(data(await server.call('instances'))).toMatchObject({
        instances: [{ name: 'worker', state: 'interrupted' }],
      });
    });
  });
});

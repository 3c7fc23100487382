import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild } from '../../rig/programs/mcp-child.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { until } from '../../rig/wait.ts';
import { data, type Ground, openFake, openOpencode1, openPreview } from './grounds.ts';

interface Generation {
  readonly name: string;
  readonly open: () => Promise<Ground>;
  readonly isPreview?: true;
  /** The agent of one message stays the session's. */
  readonly keepsAgents?: true;
  /** The service resumes turns that a crash cut. */
  readonly resumes?: true;
  readonly isMissing: boolean;
}

const GENERATIONS: readonly Generation[] = [
  { name: 'OpenCode 1', open: openOpencode1, isMissing: false },
  {
    name: 'the preview of OpenCode 2',
    open: openPreview,
    isPreview: true,
    keepsAgents: true,
    isMissing: isMissing(PREVIEW_OPENCODE),
  },
  { name: 'a fake of OpenCode 2.1', open: openFake, resumes: true, keepsAgents: true, isMissing: false },
];

/** The same calls of the same tools, for each generation. */
describe.each(GENERATIONS)('$name', ({ open, isPreview, keepsAgents, resumes, isMissing: missing }) => {
  describe.skipIf(missing)('behaves like the other generations', () => {
    let ground: Ground;
    let server: McpChild;
    let instance: string;

    beforeAll(async () => {
      ground = await open();
      server = await ground.server();
      ({ instance } = ground);
    });
    afterAll(() => ground?.[Symbol.asyncDispose]());

    const newSession = async (): Promise<string> => {
      const { session } = data(await server.call('create_session', { instance })) as { session: { id: string } };
      return session.id;
    };
    const send = (session_id: string, message: string, more: object = {}) =>
      server.call('send', { instance, session_id, message, ...more });
    const begin = (session_id: string, message: string) =>
      server.call('send_message', { instance, session_id, message, async: true });
    const row = async (): Promise<Record<string, unknown>> => {
      const { instances } = data(await server.call('instances', {})) as { instances: Record<string, unknown>[] };
      return instances.find(({ name }) => name === instance) ?? {};
    };

    test('a turn streams, and its result has the whole text', async () => {
      const session = await newSession();
      const { progress, ...sent } = await send(session, 'slow 5 60: word');
      expect(data(sent as never)).toMatchObject({ outcome: 'completed', instance, session: { id: session } });
      const streamed = progress.map(({ message = '' }) => message).join('');
      expect(streamed).toBe(data(sent as never)['text']);
      expect(progress.length).toBeGreaterThan(1);
      expect(await ground.prompts(session)).toEqual(['slow 5 60: word']);
    });

    test('several steps make one answer', async () => {
      const session = await newSession();
      await send(session, 'bash: printf one');
      expect(data(await server.call('respond', { instance, reply: 'once' }))).toMatchObject({
        outcome: 'completed',
        text: expect.stringContaining('one'),
      });
      const { messages } = data(await server.call('read', { instance, session_id: session })) as {
        messages: { role: string; tools?: string[]; text?: string }[];
      };
      expect(messages[0]).toMatchObject({ role: 'user', text: 'bash: printf one' });
      expect(messages.flatMap(({ tools = [] }) => tools).join()).toMatch(/bash|shell/);
    });

    test('a permission is listed, and is rejected with and without a message', async () => {
      const session = await newSession();
      const sent = data(await send(session, 'bash: echo asked'));
      expect(sent).toMatchObject({ outcome: 'waiting' });
      expect((sent['waiting'] as string[])[0]).toMatch(/^permission per_\w+: «bash "echo asked"»$/);
      expect(await row()).toMatchObject({ state: 'waiting' });
      expect(data(await server.call('get_status', { instance }))).toMatchObject({ state: 'waiting' });
      const refused = data(await server.call('respond', { instance, reply: 'reject' }));
      // Whether the release calls that an interruption is not known.
      expect(refused['outcome']).toMatch(/completed|aborted/);
      expect(await row()).toMatchObject({ state: 'idle' });
      await send(session, 'bash: echo again');
      const why = { reply: 'reject', message: 'not that one' };
      expect(data(await server.call('respond', { instance, ...why }))).toMatchObject({ outcome: 'completed' });
      expect((await server.call('respond', { instance, reply: 'once' })).text).toContain('waits for nothing');
    });

    test('a question is answered, and another one is rejected', async () => {
      const session = await newSession();
      const sent = data(await send(session, 'ask: Which colour?|Red|Blue'));
      expect((sent['waiting'] as string[])[0]).toContain('«Which colour? Red | Blue»');
      const wrong = await server.call('respond', { instance, answers: [['Red'], ['Blue']] });
      expect(wrong.text).toContain('Nothing was answered');
      expect(data(await server.call('respond', { instance, answers: [['Blue']] }))).toMatchObject({
        outcome: 'completed',
        text: expect.stringContaining('"Which colour?"="Blue"'),
      });
      await send(session, 'ask: Another?|Yes|No');
      expect(data(await server.call('respond', { instance, reply: 'reject' }))['outcome']).toMatch(
        /completed|failed|aborted/,
      );
    });

    test('a new message does not disturb a running turn, and can queue, wait or interrupt', async () => {
      const session = await newSession();
      expect(data(await begin(session, 'gate busy: done first'))).toMatchObject({ outcome: 'running' });
      await ground.model.waitForGate('busy');
      expect((await send(session, 'echo: refused')).text).toContain('nothing was sent');
      expect(await row()).toMatchObject({ state: 'busy' });
      const queued = send(session, 'echo: queued', { when_busy: 'queue' });
      const waited = server.call('wait', { instances: [instance], session_id: session });
      ground.model.release('busy');
      expect(data(await queued)).toMatchObject({ outcome: 'completed', text: 'queued' });
      await waited;
      await begin(session, 'gate stop: never');
      await ground.model.waitForGate('stop');
      expect(data(await send(session, 'echo: instead', { when_busy: 'interrupt' }))).toMatchObject({
        outcome: 'completed',
        text: 'instead',
        aborted: true,
      });
      expect(await ground.prompts(session)).toEqual([
        'gate busy: done first',
        'echo: queued',
        'gate stop: never',
        'echo: instead',
      ]);
    });

    test('abort ends a turn, and reports when no turn runs', async () => {
      const session = await newSession();
      await begin(session, 'gate abort: never');
      await ground.model.waitForGate('abort');
      const ended = data(await server.call('abort_session', { instance, session_id: session }));
      expect(ended).toMatchObject({ aborted: true });
      const again = data(await server.call('abort_session', { instance, session_id: session }));
      expect(again).toMatchObject({ aborted: false });
      const { messages } = data(await server.call('read', { instance, session_id: session })) as {
        messages: { role: string; state: string }[];
      };
      // An interrupt before the first word leaves no answer in OpenCode 2.
      expect(['aborted', 'complete']).toContain(messages.at(-1)?.state);
      // A send that follows the turn ends at once.
      const sending = send(session, 'gate followed: never');
      await ground.model.waitForGate('followed');
      await server.call('abort_session', { instance, session_id: session });
      expect(data(await sending)['outcome']).toMatch(/aborted|interrupted/);
      expect(data(await send(session, 'echo: goes on'))).toMatchObject({ outcome: 'completed', text: 'goes on' });
    });

    test('a model error is the reason of a failed turn', async () => {
      const sent = data(await send(await newSession(), 'fail 401'));
      expect(sent).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('401') });
    });

    test('calls with the same request id send one message, even ten at once and from another server', async () => {
      const session = await newSession();
      const ask = { session_id: session, message: 'echo: once', request_id: 'generations-once' };
      const all = await Promise.all(Array.from({ length: 10 }, () => server.call('send', { instance, ...ask })));
      expect(all.map((one) => data(one)['outcome'])).toEqual(all.map(() => 'completed'));
      const other = await ground.server();
      expect(data(await other.call('send', { instance, ...ask }))).toMatchObject({
        outcome: 'completed',
        text: 'once',
      });
      expect(await ground.prompts(session)).toEqual(['echo: once']);
    });

    test('older messages come in pages', async () => {
      const session = await newSession();
      for (const word of ['one', 'two', 'three']) await send(session, `echo: ${word}`);
      const newest = data(await server.call('read', { instance, session_id: session, message_limit: 4 }));
      const texts = (page: Record<string, unknown>): (string | undefined)[] =>
        (page['messages'] as { text?: string }[]).map(({ text }) => text);
      expect(texts(newest)).toEqual(['echo: two', 'two', 'echo: three', 'three']);
      const { before } = newest;
      const older = data(await server.call('read', { instance, session_id: session, message_limit: 4, before }));
      expect(texts(older)).toEqual(['echo: one', 'one']);
      expect(older['before']).toBeUndefined();
    });

    test('unknown agents and models are refused before anything is sent', async () => {
      const session = await newSession();
      expect((await send(session, 'echo: x', { agent: 'nobody' })).text).toMatch(/no agent "nobody".*nothing was sent/);
      expect((await send(session, 'echo: x', { model: 'no/such' })).text).toMatch(/no model "no\/such".*nothing was/);
      const planned = data(await send(session, 'echo: planned', { agent: 'plan' }));
      expect(planned).toMatchObject({ outcome: 'completed' });
      expect(planned['next']).toBe(
        keepsAgents ? 'The session keeps agent plan from now on, in its terminal too.' : undefined,
      );
    });

    test('files are listed, read and found', async () => {
      const { entries } = data(await server.call('list_files', { instance })) as { entries: string[] };
      expect(entries).toContain('README.md');
      expect(data(await server.call('read_file', { instance, path: 'README.md' }))).toMatchObject({
        text: expect.any(String),
      });
    });

    test('a session is renamed, forked and deleted, or the error names a version that supports it', async () => {
      const session = await newSession();
      await send(session, 'echo: kept');
      const renamed = await server.call('rename_session', { instance, session_id: session, title: 'A new name' });
      const forked = await server.call('fork_session', { instance, session_id: session });
      const deleted = await server.call('delete_session', { instance, session_id: session });
      for (const [one, what] of [
        [renamed, 'rename'],
        [forked, 'fork'],
        [deleted, 'delete'],
      ] as const)
        if (isPreview) expect(one.text).toMatch(new RegExp(`cannot ${what} a session; OpenCode 2.1 can`));
        else expect(one.result.isError).not.toBe(true);
    });

    test('a turn that a crash interrupts is resumed or reported, and the next turn runs', async () => {
      const session = await newSession();
      const sending = send(session, 'gate crash: never');
      await ground.model.waitForGate('crash');
      await ground.crash();
      const cut = await sending;
      expect(String(data(cut)['outcome']), cut.text).toMatch(resumes ? 'completed' : /interrupted|unknown/);
      await until('it to be back', async () => (await row())['state'] !== 'offline');
      expect(data(await send(session, 'echo: after it'))).toMatchObject({ outcome: 'completed', text: 'after it' });
      expect(await ground.prompts(session)).toEqual(['gate crash: never', 'echo: after it']);
    });
  });
});

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { expectedReply } from '../rig/model-script.ts';
import type { McpChild } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { openStage, type Stage } from './stage.ts';

let stage: Stage;
let alpha: Opencode;
let server: McpChild;

beforeAll(async () => {
  stage = await openStage();
  alpha = await stage.opencode();
  await stage.register('alpha-project', alpha);
  server = await stage.server();
});
afterAll(() => stage.close());

const field = (call: { result: { structuredContent?: unknown } }, name: string): unknown =>
  (call.result.structuredContent as Record<string, unknown> | undefined)?.[name];

describe('every tool on a real opencode', () => {
  test('instances tells name, host, directory, state, version, way and sources, in text and structure alike', async () => {
    const call = await server.call('instances');
    expect(call.result.structuredContent).toMatchObject({
      total: 1,
      instances: [
        {
          name: 'alpha-project',
          host: 'test-host',
          directory: alpha.directory,
          state: 'idle',
          version: alpha.version,
          via: `relay ${alpha.url}`,
          sources: ['local-relay'],
        },
      ],
    });
    for (const part of [
      'alpha-project',
      'test-host',
      alpha.directory,
      'idle',
      alpha.version,
      alpha.url,
      'local-relay',
    ]) {
      expect(call.text).toContain(part);
    }
  });

  test('send without a session makes one, streams the answer and returns it whole; read shows both sides', async () => {
    const script = 'slow 4 20: one two ';
    const sent = await server.call('send', { instance: 'alpha', message: script });
    const answer = expectedReply(script);
    expect(sent.result.structuredContent).toMatchObject({
      instance: 'alpha-project',
      outcome: 'completed',
      text: answer,
    });
    expect(sent.text).toContain(answer);
    expect(answer).toContain(
      sent.progress
        .map(({ message }) => message ?? '')
        .join('')
        .slice(0, 10),
    );
    const read = await server.call('read', { instance: 'alpha' });
    expect(read.result.structuredContent).toMatchObject({
      instance: 'alpha-project',
      messages: [
        { role: 'user', text: script, state: 'complete' },
        { role: 'assistant', text: answer, state: 'complete' },
      ],
    });
    expect(read.text).toContain(answer);
  });

  test('instances then shows the session; list_instances and refresh_instances know it too', async () => {
    const read = await server.call('read', { instance: 'alpha' });
    const id = (field(read, 'session') as { id: string }).id;
    for (const tool of ['instances', 'list_instances', 'refresh_instances']) {
      const call = await server.call(tool);
      expect(call.result.structuredContent, tool).toMatchObject({
        instances: [{ name: 'alpha-project', session: { id } }],
      });
    }
  });

  test('create_session, list_sessions, send_message by title, get_session by the beginning of an id', async () => {
    const created = await server.call('create_session', { instance: 'alpha', title: 'Second thoughts' });
    const id = (field(created, 'session') as { id: string }).id;
    const listed = await server.call('list_sessions', { instance: 'alpha' });
    expect(listed.result.structuredContent).toMatchObject({
      sessions: expect.arrayContaining([
        expect.objectContaining({ id, title: 'Second thoughts', state: 'idle' }),
      ]) as unknown,
    });
    const sent = await server.call('send_message', {
      instance: 'alpha',
      session_id: 'second THOUGHTS',
      message: 'echo: by title',
    });
    expect(sent.result.structuredContent).toMatchObject({ session: { id }, outcome: 'completed', text: 'by title' });
    const got = await server.call('get_session', { instance: 'alpha', session_id: id.slice(0, -6) });
    expect(got.result.structuredContent).toMatchObject({
      session: { id },
      messages: [{ text: 'echo: by title' }, { text: 'by title' }],
    });
  });

  test('send takes a session too, and goes to it though another is newer', async () => {
    const older = await server.call('create_session', { instance: 'alpha', title: 'older' });
    await server.call('create_session', { instance: 'alpha', title: 'newer' });
    const sent = await server.call('send', { instance: 'alpha', session_id: 'older', message: 'echo: to the older' });
    expect(field(sent, 'session')).toMatchObject({ id: (field(older, 'session') as { id: string }).id });
  });

  test("send without a session goes to the latest root session of the instance's own directory, not to a sub-agent's", async () => {
    await server.call('create_session', { instance: 'alpha', title: 'with a sub-agent' });
    const task = await server.call('send', {
      instance: 'alpha',
      session_id: 'with a sub-agent',
      message: 'task: echo: from the sub-agent',
    });
    expect(field(task, 'outcome')).toBe('completed');
    const after = await server.call('send', { instance: 'alpha', message: 'echo: after the task' });
    expect(field(after, 'session')).toMatchObject({ id: (field(task, 'session') as { id: string }).id });
  });

  test('get_status names what runs; abort_session ends it and status confirms; instances says busy meanwhile', async () => {
    await server.call('create_session', { instance: 'alpha', title: 'to abort' });
    const begun = await server.call('send_message', {
      instance: 'alpha',
      session_id: 'to abort',
      message: 'gate-mid abort: half |never',
      async: true,
    });
    expect(begun.result.structuredContent).toMatchObject({ outcome: 'running' });
    await stage.model.waitForGate('abort');
    expect((await server.call('get_status', { instance: 'alpha' })).result.structuredContent).toMatchObject({
      state: 'busy',
      sessions: [{ title: 'to abort', state: 'busy' }],
    });
    expect((await server.call('instances')).result.structuredContent).toMatchObject({ instances: [{ state: 'busy' }] });
    const refused = await server.call('send_message', {
      instance: 'alpha',
      session_id: 'to abort',
      message: 'echo: too early',
    });
    expect(refused.result.isError).toBe(true);
    expect(refused.text).toMatch(/nothing was sent: it is busy.*abort: true/);
    const aborted = await server.call('abort_session', { instance: 'alpha', session_id: 'to abort' });
    expect(aborted.result.structuredContent).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect((await server.call('get_status', { instance: 'alpha' })).result.structuredContent).toMatchObject({
      state: 'idle',
      sessions: [],
    });
    expect(stage.model.turns('echo: too early')).toBe(0);
  });

  test('send with abort stops what runs, then sends; abort of nothing says so', async () => {
    const caller = new AbortController();
    const cancelled = server.call('send', { instance: 'alpha', message: 'hang sendabort' }, { signal: caller.signal });
    await stage.model.waitForTurn('hang sendabort');
    // Cancelling the call stops following, not the run.
    caller.abort();
    await expect(cancelled).rejects.toThrow();
    expect((await server.call('get_status', { instance: 'alpha' })).result.structuredContent).toMatchObject({
      state: 'busy',
    });
    const sent = await server.call('send', { instance: 'alpha', message: 'echo: instead', abort: true });
    expect(sent.result.structuredContent).toMatchObject({ aborted: true, outcome: 'completed', text: 'instead' });
    expect((await server.call('send', { instance: 'alpha', abort: true })).result.structuredContent).toMatchObject({
      aborted: false,
      outcome: 'idle',
    });
  });

  test('a long answer is cut, with the way to the rest', async () => {
    const script = 'long 9000';
    const whole = expectedReply(script);
    const sent = await server.call('send', { instance: 'alpha', message: script });
    const cut = field(sent, 'cut') as { next_offset: number; total: number };
    expect(cut.total).toBe(whole.length);
    const beginning = whole.slice(0, cut.next_offset);
    expect((field(sent, 'text') as string).startsWith(beginning)).toBe(true);
    let text = beginning;
    let next: number | undefined = cut.next_offset;
    for (let page = 0; page < 5 && next !== undefined; page++) {
      const read = await server.call('read', {
        instance: 'alpha',
        message_id: field(sent, 'message_id'),
        offset: next,
      });
      const [row] = field(read, 'messages') as { text: string; cut?: { next_offset: number } }[];
      text += row?.text ?? '';
      next = row?.cut?.next_offset;
    }
    expect(text).toBe(whole);
  });

  test('older messages are read with before', async () => {
    await server.call('create_session', { instance: 'alpha', title: 'paged' });
    for (const text of ['one', 'two', 'three'])
      await server.call('send_message', { instance: 'alpha', session_id: 'paged', message: `echo: ${text}` });
    const newest = await server.call('read', { instance: 'alpha', session_id: 'paged', message_limit: 2 });
    expect(field(newest, 'messages')).toMatchObject([{ text: 'echo: three' }, { text: 'three' }]);
    const older = await server.call('read', {
      instance: 'alpha',
      session_id: 'paged',
      message_limit: 2,
      before: field(newest, 'before'),
    });
    expect(field(older, 'messages')).toMatchObject([{ text: 'echo: two' }, { text: 'two' }]);
  });
});

describe('bad input gets a clear answer', () => {
  const cases: readonly [string, string, Record<string, unknown>, RegExp][] = [
    ['an unknown name lists what there is', 'read', { instance: 'nobody' }, /nobody.*alpha-project/s],
    ['an empty name', 'read', { instance: ' ' }, /No instance was named.*alpha-project/],
    [
      'an unknown argument',
      'send',
      { instance: 'alpha', message: 'x', sesion_id: 'y' },
      /unknown argument "sesion_id".*session_id/,
    ],
    ['an empty message', 'send', { instance: 'alpha', message: '  ' }, /message is empty; nothing was sent/],
    ['neither message nor abort', 'send', { instance: 'alpha' }, /message, or abort: true/],
    ['an unknown session', 'read', { instance: 'alpha', session_id: 'ses_doesnotexist' }, /No session .*list_sessions/],
    [
      'an unknown title',
      'send',
      { instance: 'alpha', session_id: 'no such title', message: 'x' },
      /No session .*list_sessions/,
    ],
    ['a session id that is none', 'get_session', { instance: 'alpha', session_id: '../../etc' }, /No session/],
    ['an unknown message', 'read', { instance: 'alpha', message_id: 'msg_nope' }, /has no message/],
    ['an offset without a message', 'read', { instance: 'alpha', offset: 5 }, /message_id/],
    ['a limit out of bounds', 'read', { instance: 'alpha', message_limit: 0 }, /message_limit/],
    ['a wrong type', 'send', { instance: 5, message: 'x' }, /instance/],
    ['an empty title', 'create_session', { instance: 'alpha', title: ' ' }, /title is empty/],
  ];
  test.each(cases)('%s', async (_, tool, args, expected) => {
    const { result, text } = await server.call(tool, args);
    expect(result.isError).toBe(true);
    expect(text).toMatch(expected);
  });

  test('an unknown tool is an error that names the tools', async () => {
    await expect(server.call('sned', {})).rejects.toThrow(/sned.*instances, send, read/);
  });
});

import { afterAll, describe, expect, test } from 'vitest';

import { expectedReply } from '../rig/model/model-script.ts';
import { MODEL_ID, PROVIDER_ID } from '../rig/model/scripted-model.ts';
import { tempDir } from '../rig/temp.ts';
import { dataOf, progressText, useWorker } from './stage.ts';

const state = tempDir('tools');
afterAll(() => state.close());
/** All servers of a person share one state directory. */
const STATE = { XDG_STATE_HOME: state.path };
const worker = useWorker({}, { env: STATE });
const { call, data, refusal, newSession, userTexts } = worker;

describe('sessions', () => {
  test('send without a session creates one and streams the answer; read shows both messages, instances the session', async () => {
    const message = 'slow 4 20: one two ';
    const text = expectedReply(message);
    const sent = await call('send', { message });
    expect(dataOf(sent)).toMatchObject({ instance: 'worker', outcome: 'completed', text });
    expect(sent.text).toContain(text);
    expect(progressText(sent)).toMatch(/^one two 1/);
    const read = await call('read');
    expect(dataOf(read)).toMatchObject({
      messages: [
        { role: 'user', text: message, state: 'complete' },
        { role: 'assistant', text, state: 'complete' },
      ],
    });
    expect(read.text).toContain(text);
    const listed = await worker.server.call('instances');
    const { directory, version, url } = worker.opencode;
    expect(dataOf(listed)).toMatchObject({
      total: 1,
      instances: [
        {
          name: 'worker',
          host: 'test-host',
          directory,
          state: 'idle',
          version,
          via: `relay ${url}`,
          sources: ['local-relay'],
          session: { id: (dataOf(sent)['session'] as { id: string }).id },
        },
      ],
    });
    for (const part of ['worker', 'test-host', directory, 'idle', version, url, 'local-relay'])
      expect(listed.text).toContain(part);
  });

  test('are listed, and found by their title and by the beginning of their id, even if another session is newer', async () => {
    const id = await newSession('Second thoughts');
    await newSession('newer');
    expect(await data('list_sessions')).toMatchObject({
      sessions: [{ title: 'newer' }, { id, title: 'Second thoughts', state: 'idle' }, {}],
    });
    const sent = await data('send', { session_id: 'second THOUGHTS', message: 'echo: by title' });
    expect(sent).toMatchObject({ session: { id }, text: 'by title' });
    expect(await data('get_session', { session_id: id.slice(0, -6) })).toMatchObject({
      session: { id },
      messages: [{ text: 'echo: by title' }, { text: 'by title' }],
    });
  });

  test('a session of a sub-agent is not the latest session', async () => {
    const session_id = await newSession('with a sub-agent');
    await data('send', { session_id, message: 'task: echo: from the sub-agent' });
    expect(await data('send', { message: 'echo: after the task' })).toMatchObject({ session: { id: session_id } });
  });

  test('older messages are read with before', async () => {
    const session_id = await newSession();
    for (const text of ['one', 'two']) await data('send_message', { session_id, message: `echo: ${text}` });
    const page = { session_id, message_limit: 2 };
    const { messages, before } = await data('read', page);
    expect(messages).toMatchObject([{ text: 'echo: two' }, { text: 'two' }]);
    expect(await data('read', { ...page, before })).toMatchObject({
      messages: [{ text: 'echo: one' }, { text: 'one' }],
    });
  });
});

describe('a busy session', () => {
  test('gets nothing by default; queue sends when it is idle, interrupt and abort stop what runs first', async () => {
    const session_id = await newSession();
    await data('send_message', { session_id, message: 'gate first: done first', async: true });
    await worker.stage.model.waitForGate('first');
    const busy = { id: session_id, state: 'busy' };
    expect(await data('get_status')).toMatchObject({ state: 'busy', sessions: [busy] });
    expect(dataOf(await worker.server.call('instances'))).toMatchObject({ instances: [{ state: 'busy' }] });
    expect(await refusal('send', { session_id, message: 'echo: refused' })).toMatch(
      /nothing was sent: it is busy.*abort: true/,
    );
    const queued = data('send', { session_id, message: 'echo: queued', when_busy: 'queue' });
    worker.stage.model.release('first');
    expect(await queued).toMatchObject({ outcome: 'completed', text: 'queued' });
    const expected = ['gate first: done first', 'echo: queued'];
    for (const [gate, stop] of [
      ['second', { when_busy: 'interrupt' }],
      ['third', { abort: true }],
    ] as const) {
      await data('send_message', { session_id, message: `gate ${gate}: never`, async: true });
      await worker.stage.model.waitForGate(gate);
      const instead = { aborted: true, outcome: 'completed', text: `instead of ${gate}` };
      expect(await data('send', { session_id, message: `echo: instead of ${gate}`, ...stop })).toMatchObject(instead);
      expected.push(`gate ${gate}: never`, `echo: instead of ${gate}`);
    }
    expect(await userTexts(session_id)).toEqual(expected);
  });

  test('keeps running when its send call is cancelled, until it is aborted', async () => {
    const session_id = await newSession();
    const caller = new AbortController();
    const cancelled = call('send', { session_id, message: 'hang cancelled' }, { signal: caller.signal });
    await worker.stage.model.waitForGate('cancelled');
    caller.abort();
    await expect(cancelled).rejects.toThrow();
    expect(await data('get_status')).toMatchObject({ state: 'busy' });
    expect(await data('abort_session', { session_id })).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect(await data('get_status')).toMatchObject({ state: 'idle', sessions: [] });
    expect(await data('send', { abort: true })).toMatchObject({ aborted: false, outcome: 'idle' });
  });
});

test('an agent and a model that opencode knows answer; others are refused with a list of those it knows', async () => {
  const session_id = await newSession();
  const model = `${PROVIDER_ID}/${MODEL_ID}`;
  const planned = { session_id, message: 'echo: planned', agent: 'plan', model };
  expect(await data('send', planned)).toMatchObject({ outcome: 'completed', text: 'planned' });
  const stored = await worker.opencode.json('GET', `/session/${session_id}/message?limit=1`);
  expect(stored).toMatchObject([{ info: { agent: 'plan', modelID: MODEL_ID } }]);
  for (const [field, value, known] of [
    ['agent', 'nobody', 'plan'],
    ['model', 'no/such', model],
    ['model', `x/${MODEL_ID}`, model],
  ] as const) {
    const refused = await refusal('send', { session_id, message: 'echo: lost', [field]: value });
    expect(refused).toContain(known);
    expect(refused).toContain('nothing was sent');
  }
  expect(await userTexts(session_id)).toEqual(['echo: planned']);
});

test('a request id that is repeated at once, after a time-out and by another server sends one message', async () => {
  const session_id = await newSession();
  const message = 'gate once: only once';
  const once = { instance: 'worker', session_id, message, request_id: 'r-1' };
  const impatient = await worker.stage.server({ env: { ...STATE, SEND_TIMEOUT_MS: '4000' } });
  const both = Promise.all([impatient.call('send', once), impatient.call('send', once)]);
  await worker.stage.model.waitForGate('once');
  expect((await both).map(dataOf)).toMatchObject([{ outcome: 'running' }, { outcome: 'running' }]);
  impatient.kill('SIGKILL');
  await impatient.exited;
  const third = data('send', once);
  worker.stage.model.release('once');
  expect(await third).toMatchObject({ outcome: 'completed', text: 'only once' });
  // Once the turn has ended, too.
  expect(await data('send', once)).toMatchObject({ outcome: 'completed', text: 'only once' });
  expect(await userTexts(session_id)).toEqual([message]);
  expect(worker.stage.model.turns(message)).toBe(1);
});

test.each([
  ['an empty message', 'send', { message: '  ' }, /message is empty; nothing was sent/],
  ['neither message nor abort', 'send', {}, /message, or abort: true/],
  ['an unknown session', 'read', { session_id: 'ses_doesnotexist' }, /No session .*list_sessions/],
  ['an unknown title', 'send', { session_id: 'no such title', message: 'x' }, /No session .*list_sessions/],
  ['a path as session id', 'get_session', { session_id: '../../etc' }, /No session/],
  ['an unknown message', 'read', { message_id: 'msg_nope' }, /has no message/],
  ['an offset without a message', 'read', { offset: 5 }, /message_id/],
  ['an empty title', 'create_session', { title: ' ' }, /title is empty/],
])('%s is an error that says so', async (_, tool, args, reason) => {
  expect(await refusal(tool, args)).toMatch(reason);
});

test('an unknown tool is an error that names the tools', async () => {
  await expect(worker.server.call('sned')).rejects.toThrow(/sned.*instances, send, read/);
});

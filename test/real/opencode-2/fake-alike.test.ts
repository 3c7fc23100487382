import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { announce } from '../../rig/announce.ts';
import { isMissing, PREVIEW_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { startPreview } from '../../rig/opencode/opencode-preview.ts';
import { tapServerEvents, type ServerEventTap } from '../../rig/opencode-2/event-tap.ts';
import { startFakeOpencode2, type FakeOpencode2 } from '../../rig/opencode-2/fake-opencode-2.ts';
import { startScriptedModel } from '../../rig/model/scripted-model.ts';
import { until } from '../../rig/wait.ts';

/** One of the two servers, with its names for the same things. */
interface Subject extends AsyncDisposable {
  readonly server: Pick<FakeOpencode2, 'url' | 'headers' | 'api' | 'json' | 'kill9' | 'restart'>;
  readonly model: FakeOpencode2['model'];
  readonly directory: string;
  readonly body: (text: string) => object;
  readonly events: { readonly text: string; readonly permission: string };
  readonly decision: string;
}

async function startReal(): Promise<Subject> {
  const model = await startScriptedModel();
  const server = await startPreview({ model });
  announce(server);
  return {
    server,
    model,
    directory: server.directory,
    body: (text) => ({ prompt: { text } }),
    events: { text: 'session.next.text.delta', permission: 'permission.v2.asked' },
    decision: 'reply',
    async [Symbol.asyncDispose]() {
      await server.close();
      await model.close();
    },
  };
}

async function startFake(): Promise<Subject> {
  const server = await startFakeOpencode2();
  return {
    server,
    model: server.model,
    directory: '/home/user/project',
    body: (text) => ({ text }),
    events: { text: 'session.text.delta', permission: 'permission.asked' },
    decision: 'decision',
    [Symbol.asyncDispose]: () => server.close(),
  };
}

interface Message {
  readonly type: string;
  readonly text?: string;
  readonly finish?: string;
  readonly content?: readonly { readonly type: string; readonly text?: string; readonly state?: { status: string } }[];
}

/** The same tests on the preview and the fake, so that the fake is no kinder. */
const SUBJECTS = [
  ...(isMissing(PREVIEW_OPENCODE) ? [] : [{ name: 'the preview', start: startReal }]),
  { name: 'the fake of 2.1', start: startFake },
];

describe.each(SUBJECTS)('a session on $name', ({ start }) => {
  let subject: Subject;
  let tap: ServerEventTap;

  beforeAll(async () => {
    subject = await start();
    tap = await tapServerEvents(subject.server);
  });
  afterAll(async () => {
    await tap?.close();
    await subject?.[Symbol.asyncDispose]();
  });

  const open = async (): Promise<string> => {
    const body = { location: { directory: subject.directory } };
    return (await subject.server.json<{ data: { id: string } }>('POST', '/api/session', body)).data.id;
  };
  const prompt = async (session: string, text: string, extra: object = {}): Promise<void> => {
    const body = { ...subject.body(text), delivery: 'queue', ...extra };
    await subject.server.json('POST', `/api/session/${session}/prompt`, body);
  };
  const active = async (): Promise<readonly string[]> =>
    Object.keys((await subject.server.json<{ data: object }>('GET', '/api/session/active')).data);
  const idle = (session: string): Promise<unknown> =>
    until(`${session} to be idle`, async () => !(await active()).includes(session));
  const interrupt = (session: string): Promise<Response> =>
    subject.server.api(`/api/session/${session}/interrupt`, { method: 'POST' });
  const answer = async (session: string, decision: string, message?: string): Promise<void> => {
    const { data } = await tap.waitFor(subject.events.permission, ({ data }) => data.sessionID === session);
    const body = { [subject.decision]: decision, ...(message === undefined ? {} : { message }) };
    const path = `/api/session/${session}/permission/${String(data['id'])}/reply`;
    expect((await subject.server.api(path, { method: 'POST', body })).status).toBe(204);
  };
  /** Oldest first. The preview has no idle messages. */
  const transcript = async (session: string): Promise<readonly string[]> => {
    const path = `/api/session/${session}/message?order=asc`;
    const { data } = await subject.server.json<{ data: Message[] }>('GET', path);
    return data.flatMap(({ type, text, finish = 'open', content = [] }) => {
      if (type === 'user') return [`> ${text}`];
      const said = content.map((part) => part.text ?? part.state?.status);
      return type === 'assistant' ? [[finish, ...said].join(': ')] : [];
    });
  };

  it('answers queued prompts one after the other', async () => {
    const session = await open();
    await prompt(session, 'gate-mid order: one |and a half');
    await tap.waitFor(subject.events.text, ({ data }) => data.sessionID === session);
    await prompt(session, 'echo: two');
    expect((await transcript(session)).slice(0, 2)).toEqual(['> gate-mid order: one |and a half', 'open: ']);
    subject.model.release('order');
    await idle(session);
    expect(await transcript(session)).toEqual([
      '> gate-mid order: one |and a half',
      'stop: one and a half',
      '> echo: two',
      'stop: two',
    ]);
  });

  it('lets all steering prompts join at the next step, and answers the last one', async () => {
    const session = await open();
    await prompt(session, 'bash: echo yes');
    await tap.waitFor(subject.events.permission, ({ data }) => data.sessionID === session);
    await prompt(session, 'echo: queued');
    await prompt(session, 'echo: steer one', { delivery: 'steer' });
    await prompt(session, 'echo: steer two', { delivery: 'steer' });
    await answer(session, 'once');
    await idle(session);
    expect(await transcript(session)).toEqual([
      '> bash: echo yes',
      'tool-calls: completed',
      '> echo: steer one',
      '> echo: steer two',
      'stop: steer two',
      '> echo: queued',
      'stop: queued',
    ]);
  });

  it('leaves its message open after a rejection without a message, and continues after a rejection with one', async () => {
    const session = await open();
    await prompt(session, 'bash: echo no');
    await answer(session, 'reject');
    await idle(session);
    expect(await transcript(session)).toEqual(['> bash: echo no', 'open: error']);
    const other = await open();
    await prompt(other, 'bash: echo no');
    await answer(other, 'reject', 'use another one');
    await idle(other);
    // The preview keeps the message from the model.
    expect(await transcript(other)).toEqual(['> bash: echo no', 'tool-calls: error', expect.stringMatching(/^stop: /)]);
  });

  it.each(['fail 401', 'bash: echo no'])('runs queued prompts after %s', async (text) => {
    const session = await open();
    await prompt(session, 'gate-mid queue: a|b');
    await tap.waitFor(subject.events.text, ({ data }) => data.sessionID === session);
    await prompt(session, text);
    await prompt(session, 'echo: next');
    subject.model.release('queue');
    if (text !== 'fail 401') await answer(session, 'reject');
    await until('the next one', async () => (await transcript(session)).at(-1) === 'stop: next');
    await idle(session);
    expect((await transcript(session)).slice(2)).toEqual([
      `> ${text}`,
      text === 'fail 401' ? 'error' : 'open: error',
      '> echo: next',
      'stop: next',
    ]);
  });

  it('keeps the text before an interrupt, which parks queued prompts', async () => {
    const session = await open();
    await prompt(session, 'gate-mid cut: half |whole', { id: `msg_${'1'.repeat(26)}` });
    await tap.waitFor(subject.events.text, ({ data }) => data.sessionID === session);
    await prompt(session, 'echo: parked', { id: `msg_${'2'.repeat(26)}` });
    const request = await subject.model.waitForTurn('gate-mid cut: half |whole');
    await interrupt(session);
    await idle(session);
    await until('the model’s connection to be closed', () => request.aborted);
    const cut = ['> gate-mid cut: half |whole', 'error: half '];
    expect(await transcript(session)).toEqual(cut);
    // The same prompt again does not run, but wakes the parked one.
    await prompt(session, 'gate-mid cut: half |whole', { id: `msg_${'1'.repeat(26)}` });
    await until('the parked one', async () => (await transcript(session)).at(-1) === 'stop: parked');
    expect(await transcript(session)).toEqual([...cut, '> echo: parked', 'stop: parked']);
    expect(subject.model.turns('gate-mid cut: half |whole')).toBe(1);
  });

  it('has no answer if the model was interrupted before its first word', async () => {
    const session = await open();
    await prompt(session, 'hang never');
    await subject.model.waitForGate('never');
    await interrupt(session);
    await idle(session);
    expect(await transcript(session)).toEqual(['> hang never']);
    expect((await interrupt(session)).ok).toBe(true);
  });

  it('admits a message without running it, and answers 404 for the message until it is delivered', async () => {
    const session = await open();
    const extra = { id: `msg_${'3'.repeat(26)}` };
    await prompt(session, 'echo: later', { ...extra, resume: false });
    expect(await active()).not.toContain(session);
    const path = `/api/session/${session}/message/${extra.id}`;
    expect((await subject.server.api(path)).status).toBe(404);
    await prompt(session, 'echo: later', extra);
    await until('the delivery', async () => (await subject.server.api(path)).ok);
    await idle(session);
    expect(await transcript(session)).toEqual(['> echo: later', 'stop: later']);
  });

  it('refuses malformed ids, and ids of another session', async () => {
    const [session, other] = [await open(), await open()];
    const id = `msg_${'4'.repeat(26)}`;
    await prompt(session, 'echo: mine', { id });
    const body = { ...subject.body('echo: mine'), delivery: 'queue', id };
    const statuses = await Promise.all(
      [
        subject.server.api(`/api/session/${other}/prompt`, { method: 'POST', body }),
        subject.server.api(`/api/session/${session}/prompt`, { method: 'POST', body: { ...body, id: 'x' } }),
        subject.server.api('/api/session/ses_none'),
        subject.server.api('/api/session/none'),
        subject.server.api('/api/session?cursor=zzz'),
        subject.server.api(`/api/session/${session}/message?limit=201`),
        fetch(`${subject.server.url}/api/session`),
      ].map(async (response) => (await response).status),
    );
    expect(statuses).toEqual([409, 400, 404, 400, 400, 400, 401]);
    await idle(session);
  });

  it('runs a message id only once, even over a kill and a restart', async () => {
    const session = await open();
    const extra = { id: `msg_${'5'.repeat(26)}` };
    await Promise.all(Array.from({ length: 10 }, () => prompt(session, 'echo: once', extra)));
    await idle(session);
    await subject.server.kill9();
    await subject.server.restart();
    await prompt(session, 'echo: once', extra);
    await prompt(session, 'echo: after');
    await until('the one after', async () => (await transcript(session)).at(-1) === 'stop: after');
    expect(subject.model.turns('echo: once')).toBe(1);
  });
});

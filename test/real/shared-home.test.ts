import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { expectedReply } from '../rig/model-script.ts';
import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

/** A client for which a send waits as long as a cold opencode on a busy machine may need. */
const CLAUDE_CODE = { name: 'claude-code', version: '2.1.329' };

/** Two opencodes of one person in one project: they share sessions, but neither knows what the other one runs. */
describe('two real opencodes with one home and one directory', () => {
  let stage: Stage;
  let alpha: Opencode;
  let beta: Opencode;
  let server: McpChild;

  beforeAll(async () => {
    stage = await openStage();
    alpha = await stage.opencode();
    beta = await stage.opencode({ home: alpha.home, directory: alpha.directory });
    await stage.register('alpha', alpha);
    await stage.register('beta', beta);
    server = await stage.server({ clientInfo: CLAUDE_CODE });
  });
  afterAll(() => stage.close());

  async function newSession(instance: string, title: string): Promise<string> {
    return (data(await server.call('create_session', { instance, title }))['session'] as { id: string }).id;
  }

  /** Begins a turn on `instance` that stands at a gate of this name, its first half said. */
  async function begin(instance: string, session_id: string, gate: string): Promise<void> {
    await server.call('send_message', {
      instance,
      session_id,
      message: `gate-mid ${gate}: half |of ${gate}`,
      async: true,
    });
    await stage.model.waitForGate(gate);
  }

  /** As stored, asked through either: it is one store. */
  async function userTexts(session: string): Promise<string[]> {
    type Stored = readonly {
      readonly info: { readonly role: string };
      readonly parts: readonly { readonly text?: string }[];
    }[];
    const [one, other] = await Promise.all(
      [alpha, beta].map((opencode) => opencode.json<Stored>('GET', `/session/${session}/message`)),
    );
    const texts = (stored: Stored = []): string[] =>
      stored.filter(({ info }) => info.role === 'user').flatMap(({ parts }) => parts.map(({ text }) => text ?? ''));
    expect(texts(one)).toEqual(texts(other));
    return texts(one);
  }

  test('they are listed as two', async () => {
    expect(data(await server.call('instances'))).toMatchObject({
      total: 2,
      instances: [
        { name: 'alpha', directory: alpha.directory, state: 'idle' },
        { name: 'beta', directory: alpha.directory, state: 'idle' },
      ],
    });
  });

  test('a session that runs in one: a send through the other is refused and names the one; nothing is sent', async () => {
    const session_id = await newSession('alpha', 'runs in alpha');
    await begin('alpha', session_id, 'refused');
    for (const tool of ['send', 'send_message']) {
      const { result, text } = await server.call(tool, { instance: 'beta', session_id, message: 'echo: through beta' });
      expect(result.isError).toBe(true);
      expect(text).toMatch(
        /nothing was sent: alpha, another opencode with the same sessions, works on this one; send there/,
      );
    }
    stage.model.release('refused');
    const sent = await server.call('send', { instance: 'alpha', session_id, message: 'echo: next', abort: true });
    expect(data(sent)).toMatchObject({ outcome: 'completed', text: 'next' });
    expect(stage.model.turns('echo: through beta')).toBe(0);
    expect(await userTexts(session_id)).toEqual(['gate-mid refused: half |of refused', 'echo: next']);
  });

  test('an abort through the other names the one and stops nothing; through the one it works and is verified', async () => {
    const session_id = await newSession('alpha', 'to abort in alpha');
    await begin('alpha', session_id, 'abort');
    for (const call of [
      server.call('abort_session', { instance: 'beta', session_id }),
      server.call('send', { instance: 'beta', session_id, abort: true }),
      server.call('send', { instance: 'beta', session_id, abort: true, message: 'echo: instead' }),
    ]) {
      const { result, text } = await call;
      expect(result.isError).toBe(true);
      expect(text).toMatch(/runs in alpha.*abort it there/s);
    }
    expect(Object.keys(await alpha.json<object>('GET', '/session/status'))).toEqual([session_id]);

    const aborted = await server.call('abort_session', { instance: 'alpha', session_id });
    expect(data(aborted)).toMatchObject({ aborted: true, outcome: 'aborted' });
    expect(await alpha.json('GET', '/session/status')).toEqual({});
    expect(data(await server.call('read', { instance: 'beta', session_id }))).toMatchObject({
      messages: [{ role: 'user' }, { role: 'assistant', state: 'aborted' }],
    });
    expect(stage.model.turns('echo: instead')).toBe(0);
  });

  test('what runs in one can be read through the other', async () => {
    const session_id = await newSession('alpha', 'read through beta');
    const message = 'gate-mid read: half |of read';
    await begin('alpha', session_id, 'read');
    const running = await server.call('read', { instance: 'beta', session_id });
    // To beta it looks like one that was never completed; that another process works on it is found out.
    const busyInAlpha = { id: session_id, state: 'busy', reason: 'alpha works on it' };
    expect(data(running)).toMatchObject({
      session: { ...busyInAlpha, title: 'read through beta' },
      messages: [
        { role: 'user', text: message },
        { role: 'assistant', state: 'streaming' },
      ],
    });
    const [, answer] = data(running)['messages'] as { id: string }[];
    expect(data(await server.call('read', { instance: 'beta', session_id, message_id: answer?.id }))).toMatchObject({
      session: busyInAlpha,
      messages: [{ state: 'streaming' }],
    });
    expect(data(await server.call('list_sessions', { instance: 'beta' }))).toMatchObject({
      sessions: expect.arrayContaining([expect.objectContaining(busyInAlpha) as unknown]) as unknown,
    });
    // What beta does is another question.
    expect(data(await server.call('get_status', { instance: 'beta' }))).toMatchObject({ state: 'idle', sessions: [] });
    expect(data(await server.call('instances'))).toMatchObject({
      instances: [
        { name: 'alpha', state: 'busy' },
        { name: 'beta', state: 'idle' },
      ],
    });
    const followed = server.call('read', { instance: 'alpha', session_id });
    expect(data(await followed)).toMatchObject({ session: { state: 'busy' } });
    stage.model.release('read');
    // The next turn waits for nobody else: by then the first has ended, in alpha and so in the store.
    await server.call('send', { instance: 'alpha', session_id, message: 'echo: after', abort: true });
    expect(data(await server.call('read', { instance: 'beta', session_id }))).toMatchObject({
      session: { state: 'idle' },
      messages: [{ text: message }, {}, { text: 'echo: after' }, { text: 'after', state: 'complete' }],
    });
  });

  test('sends through both at once, to different sessions: each gets its own answer, and each message is stored once', async () => {
    const [one, other] = [await newSession('alpha', 'for alpha'), await newSession('beta', 'for beta')];
    for (let round = 1; round <= 5; round++) {
      const [a, b] = [`slow 3 20: alpha ${round}`, `slow 3 20: beta ${round}`];
      const sent = await Promise.all([
        server.call('send', { instance: 'alpha', session_id: one, message: a }),
        server.call('send', { instance: 'beta', session_id: other, message: b }),
      ]);
      expect(sent.map(data)).toMatchObject([
        { instance: 'alpha', outcome: 'completed', text: expectedReply(a) },
        { instance: 'beta', outcome: 'completed', text: expectedReply(b) },
      ]);
    }
    expect(await userTexts(one)).toEqual([1, 2, 3, 4, 5].map((round) => `slow 3 20: alpha ${round}`));
    expect(await userTexts(other)).toEqual([1, 2, 3, 4, 5].map((round) => `slow 3 20: beta ${round}`));
    for (let round = 1; round <= 5; round++) expect(stage.model.turns(`slow 3 20: alpha ${round}`)).toBe(1);
  });

  test('a session that has come to rest goes on through either, one answer each', async () => {
    const session_id = await newSession('alpha', 'taken in turns');
    const messages = ['alpha', 'beta', 'alpha', 'beta'].map((instance, index) => ({
      instance,
      message: `echo: turn ${index}`,
    }));
    for (const { instance, message } of messages) {
      const sent = await server.call('send', { instance, session_id, message });
      expect(data(sent)).toMatchObject({ instance, outcome: 'completed', text: expectedReply(message) });
      expect(stage.model.turns(message)).toBe(1);
    }
    expect(await userTexts(session_id)).toEqual(messages.map(({ message }) => message));
  });

  test('sends through both at once to one session: one runs, the other is refused, and only one is stored', async () => {
    const session_id = await newSession('alpha', 'wanted by both');
    const messages = ['alpha', 'beta'].map((instance) => `slow 5 100: both ${instance}`);
    const sent = await Promise.all(
      ['alpha', 'beta'].map((instance, index) =>
        server.call('send', { instance, session_id, message: messages[index] }),
      ),
    );
    const told = sent.map((call) => (call.result.isError === true ? 'refused' : String(data(call)['outcome'])));
    expect(told.toSorted()).toEqual(['completed', 'refused']);
    expect(await userTexts(session_id)).toEqual([messages[told.indexOf('completed')]]);
    expect(messages.map((message) => stage.model.turns(message)).toSorted((a, b) => a - b)).toEqual([0, 1]);
  });
});

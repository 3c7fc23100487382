import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { expectedReply, HANG_REPLY } from '../rig/model-script.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

/** Longer than the patient client waits without progress; `npm run soak` makes it more than three minutes. */
const SECONDS = Number(process.env['LONG_TURN_SECONDS'] ?? 35);
/** In the short form, in place of the 48 s that an unknown client gets (test/mcp/legacy/client-limits.test.ts). */
const SHORTER = SECONDS < 60 ? { SEND_TIMEOUT_MS: '15000' } : {};
const message = `slow ${SECONDS} 1000: piece`;
const whole = expectedReply(message);

/** For what takes as long as the turn, which a busy machine stretches. */
const LIMIT_MS = 600_000;

/** Side by side, so that the time passes once. */
describe('a turn that is longer than clients wait', () => {
  let stage: Stage;
  let claudeCode: McpChild;
  let unknown: McpChild;
  let streamed: Promise<ToolCall>;
  let silent: Promise<ToolCall>;
  let cutShort: Promise<ToolCall>;
  let session_id: string;

  beforeAll(async () => {
    stage = await openStage();
    await stage.register('worker', await stage.opencode());
    claudeCode = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
    unknown = await stage.server({ clientInfo: { name: 'some-client', version: '1.0.0' }, env: SHORTER });
    session_id = await newSession('cut short');
    const sessions = { streamed: await newSession('streamed'), silent: await newSession('silent') };
    // It gives up after 25 s without progress: two and a half signs of life.
    const send = (session: string, text: string): Promise<ToolCall> =>
      claudeCode.call('send', { instance: 'worker', session_id: session, message: text }, { timeoutMs: 25_000 });
    streamed = send(sessions.streamed, message);
    silent = send(sessions.silent, 'hang silent');
    // It gives up after 60 s whatever comes, as the clients of the SDK do.
    cutShort = unknown.call(
      'send',
      { instance: 'worker', session_id, message },
      { timeoutMs: 60_000, progress: false },
    );
    // Each is awaited by a test of its own.
    for (const call of [streamed, silent, cutShort]) call.catch(() => {});
  });
  afterAll(() => stage.close());

  async function newSession(title: string): Promise<string> {
    return (data(await claudeCode.call('create_session', { instance: 'worker', title }))['session'] as { id: string })
      .id;
  }

  test('an unknown client gets what there is before it gives up, that it still runs, and how to go on', async () => {
    const { result, text } = await cutShort;
    const { message_id } = data({ result } as ToolCall);
    expect(result.structuredContent).toMatchObject({
      outcome: 'running',
      message_id: expect.stringMatching(/^msg_/) as string,
    });
    const how = `read with instance worker, session_id ${session_id} and message_id ${String(message_id)}`;
    expect(text).toContain(`It still runs. To see how it goes on: wait with instances [worker] or ${how}`);
    expect(data(await unknown.call('read', { instance: 'worker', session_id, message_id }))).toMatchObject({
      session: { id: session_id, state: 'busy' },
      messages: [{ id: message_id, role: 'answer to', state: 'streaming' }],
    });
    const again = await unknown.call('send', { instance: 'worker', session_id, message: 'echo: impatient' });
    expect(again.text).toMatch(/nothing was sent: it is busy/);
  });

  test(
    'a client that is known to wait on progress gets the whole answer from one call, streamed piece by piece',
    async () => {
      const call = await streamed;
      expect(data(call)).toMatchObject({ outcome: 'completed', text: whole });
      expect(call.progress.map(({ message: text }) => text ?? '').join('')).toBe(whole);
      expect(call.progress.length).toBeGreaterThan(SECONDS / 2);
    },
    LIMIT_MS,
  );

  test(
    'a model that says nothing all that time: signs of life keep the call open until the answer comes',
    async () => {
      // The other turn is over: for as long nothing was said in this one.
      await streamed;
      stage.model.release('silent');
      const call = await silent;
      expect(data(call)).toMatchObject({ outcome: 'completed', text: HANG_REPLY });
      const signs = call.progress.filter(({ message: text }) => text === undefined);
      expect(signs.length).toBeGreaterThan(1);
    },
    LIMIT_MS,
  );

  test(
    'the answer to the unknown client is there to be read in the end, whole, with the handle that it was given',
    async () => {
      await streamed;
      const { message_id } = data(await cutShort);
      const read = await until('the turn to end', async () => {
        const call = await unknown.call('read', { instance: 'worker', session_id, message_id });
        return call.text.includes('(streaming)') ? undefined : call;
      });
      expect(data(read)).toMatchObject({
        session: { state: 'idle' },
        messages: [{ id: message_id, role: 'answer to', state: 'complete', text: whole }],
      });
      expect(stage.model.turns(message)).toBe(2);
      expect(stage.model.turns('echo: impatient')).toBe(0);
    },
    LIMIT_MS,
  );
});

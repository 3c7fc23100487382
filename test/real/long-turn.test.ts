import { beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/programs/mcp-child.ts';
import { expectedReply, HANG_REPLY } from '../rig/model/model-script.ts';
import { until } from '../rig/wait.ts';
import { CLAUDE_CODE, dataOf, progressText, refusalOf, useWorker } from './stage.ts';

/** Longer than the patient client waits without progress; `npm run soak` makes it more than three minutes. */
const SECONDS = Number(process.env['LONG_TURN_SECONDS'] ?? 24);
/** In the short form, in place of the 48 s that an unknown client gets (test/mcp/client-limits.test.ts). */
const SHORTER = SECONDS < 60 ? { SEND_TIMEOUT_MS: '15000' } : {};
const message = `slow ${SECONDS} 1000: piece`;
const whole = expectedReply(message);

/** For what takes as long as the turn, which a busy machine stretches. */
const LIMIT_MS = 600_000;

/** The turns run at the same time, so that it passes only once. */
describe('a turn that is longer than clients wait', { timeout: LIMIT_MS }, () => {
  const worker = useWorker({}, CLAUDE_CODE);
  let unknown: McpChild;
  let streamed: Promise<ToolCall>;
  let silent: Promise<ToolCall>;
  let cutShort: Promise<ToolCall>;
  let session_id: string;

  beforeAll(async () => {
    unknown = await worker.stage.server({ clientInfo: { name: 'some-client', version: '1.0.0' }, env: SHORTER });
    session_id = await worker.newSession('cut short');
    const [ofStreamed, ofSilent] = [await worker.newSession('streamed'), await worker.newSession('silent')];
    // Claude Code gives up after 18 s without progress: there is a sign of life every 10 s.
    streamed = worker.call('send', { session_id: ofStreamed, message }, { timeoutMs: 18_000 });
    silent = worker.call('send', { session_id: ofSilent, message: 'hang silent' }, { timeoutMs: 18_000 });
    // Clients of the SDK give up after 60 s, whatever comes.
    const input = { instance: 'worker', session_id, message };
    cutShort = unknown.call('send', input, { timeoutMs: 60_000, progress: false });
    // A test awaits each.
    for (const call of [streamed, silent, cutShort]) call.catch(() => {});
  });

  test('an unknown client gets the partial answer before it times out, with how to follow the running turn', async () => {
    const sent = await cutShort;
    const { message_id } = dataOf(sent);
    expect(dataOf(sent)).toMatchObject({ outcome: 'running', message_id: expect.stringMatching(/^msg_/) as string });
    const how = `read with instance worker, session_id ${session_id} and message_id ${String(message_id)}`;
    expect(sent.text).toContain(`It still runs. To see how it goes on: wait with instances [worker] or ${how}`);
    const read = { instance: 'worker', session_id, message_id };
    expect(dataOf(await unknown.call('read', read))).toMatchObject({
      session: { id: session_id, state: 'busy' },
      messages: [{ id: message_id, role: 'answer to', state: 'streaming' }],
    });
    const again = await unknown.call('send', { instance: 'worker', session_id, message: 'echo: impatient' });
    expect(refusalOf(again)).toMatch(/nothing was sent: it is busy/);
  });

  test('a client that waits as long as progress arrives gets the whole answer from one call, in pieces', async () => {
    const call = await streamed;
    expect(dataOf(call)).toMatchObject({ outcome: 'completed', text: whole });
    expect(progressText(call)).toBe(whole);
    expect(call.progress.length).toBeGreaterThan(SECONDS / 2);
  });

  test('progress notifications keep a call open while the model is silent', async () => {
    // It has taken as long as the other turn, which is over.
    await streamed;
    worker.stage.model.release('silent');
    const call = await silent;
    expect(dataOf(call)).toMatchObject({ outcome: 'completed', text: HANG_REPLY });
    expect(call.progress.filter(({ message: text }) => text === undefined).length).toBeGreaterThan(1);
  });

  test('an unknown client reads the whole answer by its message id after the turn', async () => {
    await streamed;
    const { message_id } = dataOf(await cutShort);
    const read = await until('the turn to end', async () => {
      const call = await unknown.call('read', { instance: 'worker', session_id, message_id });
      return call.text.includes('(streaming)') ? undefined : call;
    });
    expect(dataOf(read)).toMatchObject({
      session: { state: 'idle' },
      messages: [{ id: message_id, role: 'answer to', state: 'complete', text: whole }],
    });
    expect(worker.stage.model.turns(message)).toBe(2);
    expect(worker.stage.model.turns('echo: impatient')).toBe(0);
  });
});

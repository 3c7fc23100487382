import { writeFile } from 'node:fs/promises';

import { expect, test } from 'vitest';

import type { ToolCall } from '../rig/programs/mcp-child.ts';
import { CONTINUED, HANG_GATE } from '../rig/model/model-script.ts';
import { MODEL_ID, PROVIDER_ID, SCRIPTED_SUMMARY } from '../rig/model/scripted-model.ts';
import { CLAUDE_CODE, dataOf, onEachOpencode, progressText, useWorker } from './stage.ts';

onEachOpencode('a turn whose context is compacted', (binary) => {
  const worker = useWorker({ binary, permission: { bash: 'allow' } }, CLAUDE_CODE);
  const { call, data, newSession } = worker;

  async function compactByHand(session: string): Promise<void> {
    const model = { providerID: PROVIDER_ID, modelID: MODEL_ID };
    await worker.opencode.json('POST', `/session/${session}/summarize`, model);
  }

  /** send, wait and read all show the turn with this text. */
  async function expectTurn(session_id: string, sent: ToolCall, text: string): Promise<void> {
    expect(dataOf(sent)).toMatchObject({ outcome: 'completed', text });
    expect(progressText(sent)).toBe(text);
    const { message_id } = dataOf(sent);
    const waited = await worker.server.call('wait', { instances: ['worker'], session_id });
    expect(dataOf(waited)).toMatchObject({ turns: [{ outcome: 'completed', message_id, text }] });
    const read = await data('read', { session_id, message_id });
    expect(read).toMatchObject({ messages: [{ state: 'complete', text }] });
  }

  test.each([
    ['after a tool call', 'overflow 1: bash: echo hi', CONTINUED],
    ['twice', 'overflow 2: bash: echo hi', `${CONTINUED}\n\n${CONTINUED}`],
    ['after its last step', 'overflow 1: echo: last words', `last words\n\n${CONTINUED}`],
    ['since its first message is too long', 'too-long 1: echo: first', CONTINUED],
  ])('%s continues its answer after the summary, which is not a part of it', async (_, message, text) => {
    const session_id = await newSession();
    await expectTurn(session_id, await call('send', { session_id, message }), text);
    const { messages } = await data('read', { session_id, message_limit: 20 });
    const summaries = (messages as { state: string; text: string }[]).filter((row) => row.text === SCRIPTED_SUMMARY);
    expect(summaries.length).toBeGreaterThan(0);
    expect(new Set(summaries.map(({ state }) => state))).toEqual(new Set(['summary of what was said before']));
  });

  test('since a later message is too long has the answer to the repeated message', async () => {
    const session_id = await newSession();
    await data('send', { session_id, message: 'echo: before' });
    const sent = await call('send', { session_id, message: 'too-long 1: echo: fits now' });
    await expectTurn(session_id, sent, 'fits now');
  });

  test('by hand after its end keeps its text, and the next turn has only its own', async () => {
    const session_id = await newSession();
    const sent = await call('send', { session_id, message: 'echo: said before' });
    await compactByHand(session_id);
    await expectTurn(session_id, sent, 'said before');
    await expectTurn(session_id, await call('send', { session_id, message: 'echo: said after' }), 'said after');
  });

  test("in vain, since the summary does not fit either, fails with opencode's reason", async () => {
    const session_id = await newSession();
    expect(await data('send', { session_id, message: 'too-long 9: summary-too: never' })).toMatchObject({
      outcome: 'failed',
      reason: expect.stringContaining('context') as string,
    });
  });

  test('is aborted if abort_session is called during the compaction', async () => {
    const session_id = await newSession();
    const sending = data('send', { session_id, message: 'overflow 1: bash: echo hang-summary' });
    await worker.stage.model.waitForGate(HANG_GATE);
    await data('abort_session', { session_id });
    expect(await sending).toMatchObject({ outcome: 'aborted', text: '' });
  });

  test('by hand before its end has a result that says that opencode did not continue', async () => {
    const session_id = await newSession();
    const untilGo = 'echo one; until test -e go; do sleep 0.1; done';
    const message = `plan: ${JSON.stringify([untilGo, 'echo two'].map((command) => ['bash', { command }]))}`;
    const sending = data('send', { session_id, message });
    await worker.stage.model.waitForTurn(message);
    const compacting = compactByHand(session_id);
    const stored = async (): Promise<string> =>
      (await worker.opencode.request('GET', `/session/${session_id}/message`)).text();
    await expect.poll(stored, { timeout: 30_000 }).toContain('"compaction"');
    await writeFile(`${worker.opencode.directory}/go`, '');
    await compacting;
    expect(await sending).toMatchObject({
      outcome: 'interrupted',
      reason: expect.stringContaining('compacted in the middle') as string,
      text: '',
    });
  });
});

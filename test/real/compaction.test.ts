import { writeFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { CONTINUED, HANG_GATE } from '../rig/model-script.ts';
import { isMissing, OPENCODES } from '../rig/opencode-binaries.ts';
import type { Opencode } from '../rig/opencode.ts';
import { MODEL_ID, PROVIDER_ID, SCRIPTED_SUMMARY } from '../rig/scripted-model.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

interface Row {
  readonly id: string;
  readonly state: string;
  readonly text: string;
}

describe.each(OPENCODES)('a turn that the $name compacts', ({ binary }) => {
  describe.skipIf(isMissing(binary))('', () => {
    let stage: Stage;
    let opencode: Opencode;
    let server: McpChild;

    beforeAll(async () => {
      stage = await openStage();
      opencode = await stage.opencode({ binary, permission: { bash: 'allow' } });
      await stage.register('worker', opencode);
      server = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
    });
    afterAll(() => stage.close());

    async function newSession(): Promise<string> {
      const created = await server.call('create_session', { instance: 'worker', title: 'compacted' });
      return (data(created)['session'] as { id: string }).id;
    }

    const send = (session_id: string, message: string): Promise<ToolCall> =>
      server.call('send', { instance: 'worker', session_id, message });

    async function compactByHand(session: string): Promise<void> {
      await opencode.json('POST', `/session/${session}/summarize`, { providerID: PROVIDER_ID, modelID: MODEL_ID });
    }

    /** The turn as send, wait and read tell it, which is one. */
    async function expectTurn(session_id: string, sent: ToolCall, text: string): Promise<void> {
      expect(data(sent)).toMatchObject({ outcome: 'completed', text });
      expect(sent.progress.map(({ message }) => message ?? '').join('')).toBe(text);
      const { message_id } = data(sent);
      const waited = await server.call('wait', { instances: ['worker'], session_id });
      expect(data(waited)['turns']).toMatchObject([{ outcome: 'completed', message_id, text }]);
      const read = await server.call('read', { instance: 'worker', session_id, message_id });
      expect(data(read)['messages']).toMatchObject([{ state: 'complete', text }]);
    }

    test.each([
      ['after a tool call', 'overflow 1: bash: echo hi', CONTINUED],
      ['twice', 'overflow 2: bash: echo hi', `${CONTINUED}\n\n${CONTINUED}`],
      ['after its last step', 'overflow 1: echo: last words', `last words\n\n${CONTINUED}`],
      [
        'since the provider says that it is too long, as the first of its session',
        'too-long 1: echo: first',
        CONTINUED,
      ],
    ])('%s: the answer is what comes after it, too, and the summary is none', async (_, message, text) => {
      const session_id = await newSession();
      await expectTurn(session_id, await send(session_id, message), text);
      const read = await server.call('read', { instance: 'worker', session_id, message_limit: 20 });
      const summaries = (data(read)['messages'] as Row[]).filter((row) => row.text === SCRIPTED_SUMMARY);
      expect(summaries.length).toBeGreaterThan(0);
      expect(new Set(summaries.map(({ state }) => state))).toEqual(new Set(['summary of what was said before']));
    });

    test('since the provider says that it is too long: what answers the repeated message answers ours', async () => {
      const session_id = await newSession();
      await send(session_id, 'echo: before');
      await expectTurn(session_id, await send(session_id, 'too-long 1: echo: fits now'), 'fits now');
    });

    test('by hand after a turn: the turn stands as it was, and the next one begins by itself', async () => {
      const session_id = await newSession();
      const sent = await send(session_id, 'echo: said before');
      await compactByHand(session_id);
      await expectTurn(session_id, sent, 'said before');
      await expectTurn(session_id, await send(session_id, 'echo: said after'), 'said after');
    });

    test('for nothing, since the summary does not fit either: told as failed, with its words', async () => {
      expect(data(await send(await newSession(), 'too-long 9: summary-too: never'))).toMatchObject({
        outcome: 'failed',
        reason: expect.stringContaining('context') as string,
      });
    });

    test('and that is aborted meanwhile: told as aborted', async () => {
      const session_id = await newSession();
      const sending = send(session_id, 'overflow 1: bash: echo hang-summary');
      await stage.model.waitForGate(HANG_GATE);
      await server.call('abort_session', { instance: 'worker', session_id });
      expect(data(await sending)).toMatchObject({ outcome: 'aborted', text: '' });
    });

    test('by hand in the middle of a turn: it is told that opencode did not go on', async () => {
      const session_id = await newSession();
      const message =
        'plan: [["bash",{"command":"echo one; until test -e go; do sleep 0.1; done"}],["bash",{"command":"echo two"}]]';
      const sending = send(session_id, message);
      await stage.model.waitForTurn(message);
      const compacting = compactByHand(session_id);
      await expect
        .poll(async () => JSON.stringify(await opencode.json('GET', `/session/${session_id}/message`)), {
          timeout: 30_000,
        })
        .toContain('"compaction"');
      await writeFile(`${opencode.directory}/go`, '');
      await compacting;
      expect(data(await sending)).toMatchObject({
        outcome: 'interrupted',
        reason: expect.stringContaining('compacted in the middle') as string,
        text: '',
      });
    });
  });
});

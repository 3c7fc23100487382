import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { Opencode } from '../rig/opencode.ts';
import { isMissing, OPENCODES } from '../rig/opencode-binaries.ts';
import { createRealSession, textOf, type StoredMessage } from '../rig/real-session.ts';
import { openStage, type Stage } from './stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

/** A client for which a send waits as long as a cold opencode on a busy machine may need. */
const CLAUDE_CODE = { name: 'claude-code', version: '2.1.329' };

/** Seconds. opencode orders messages by ids that hold its time: 1.18.10 loops on one ahead of it and never answers one behind. */
const OFFSETS = [60, -60];
const TURNS = 3;

const cases = OPENCODES.flatMap(({ name, binary }) => OFFSETS.map((offset) => ({ name, binary, offset })));

describe.each(cases)('the $name with its clock $offset s off ours', ({ binary, offset }) => {
  describe.skipIf(isMissing(binary))('', () => {
    let stage: Stage;
    let opencode: Opencode;
    let server: McpChild;

    beforeAll(async () => {
      stage = await openStage();
      opencode = await stage.opencode({ binary, fakeClockOffset: offset });
      await stage.register('shifted', opencode);
      server = await stage.server({ clientInfo: CLAUDE_CODE });
    });
    afterAll(() => stage.close());

    async function sendInARow(session_id: string, label: string): Promise<string[]> {
      const words = Array.from({ length: TURNS }, (_, index) => `${label} ${index + 1}`);
      for (const word of words) {
        const sent = await server.call('send', { instance: 'shifted', session_id, message: `echo: ${word}` });
        expect(data(sent)).toMatchObject({ outcome: 'completed', text: word });
      }
      return words;
    }

    /** Nothing runs any more, each message stands once, each with one answer, and the model was asked once for each. */
    async function expectOneAnswerEach(session_id: string, words: readonly string[]): Promise<void> {
      expect(await opencode.json('GET', '/session/status')).toEqual({});
      const stored = await opencode.json<readonly StoredMessage[]>('GET', `/session/${session_id}/message`);
      expect(stored.map((message) => [message.info.role, textOf(message)])).toEqual(
        words.flatMap((word) => [
          ['user', `echo: ${word}`],
          ['assistant', word],
        ]),
      );
      const asked = stage.model.requests.filter(({ kind, sessionID }) => kind === 'turn' && sessionID === session_id);
      expect(asked.map(({ text }) => text)).toEqual(words.map((word) => `echo: ${word}`));
    }

    test('its clock is off, and it is listed as any other', async () => {
      const session = await createRealSession(opencode, 'a look at the clock');
      await session.prompt('echo: later');
      const { last } = await session.settled();
      for (const ms of [session.createdMs, last.info.time.created, idMs(last.info.id)])
        expect(Math.abs(ms - Date.now() - offset * 1000)).toBeLessThan(20_000);
      expect(data(await server.call('instances'))).toMatchObject({
        instances: [{ name: 'shifted', state: 'idle', session: { title: 'a look at the clock' } }],
      });
    });

    test('three turns in an empty session: exactly one answer each', async () => {
      const created = data(await server.call('create_session', { instance: 'shifted', title: 'empty' }));
      const { id } = created['session'] as { readonly id: string };
      await expectOneAnswerEach(id, await sendInARow(id, 'empty'));
    });

    test('three turns in a session with a history of its own: exactly one answer each', async () => {
      const session = await createRealSession(opencode, 'with a history');
      for (const word of ['before 1', 'before 2']) {
        await session.prompt(`echo: ${word}`);
        await session.settled();
      }
      const words = await sendInARow(session.id, 'after');
      await expectOneAnswerEach(session.id, ['before 1', 'before 2', ...words]);
    });

    test('its own prompts and ours in turn: exactly one answer each', async () => {
      const session = await createRealSession(opencode, 'in turn');
      const words: string[] = [];
      for (let round = 1; round <= 2; round++) {
        const sent = await server.call('send', {
          instance: 'shifted',
          session_id: session.id,
          message: `echo: ours ${round}`,
        });
        expect(data(sent)).toMatchObject({ outcome: 'completed', text: `ours ${round}` });
        await session.prompt(`echo: its own ${round}`);
        await session.settled();
        words.push(`ours ${round}`, `its own ${round}`);
      }
      await expectOneAnswerEach(session.id, words);
    });
  });
});

/** The time in an id, in the present span of its 48 bits: milliseconds since the Unix epoch. */
function idMs(id: string): number {
  const span = 2 ** 36;
  const ms = Number(BigInt(`0x${id.slice(4, 16)}`) / 4096n);
  return Math.floor(Date.now() / span) * span + ms;
}

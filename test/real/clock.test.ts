import { describe, expect, test } from 'vitest';

import { createRealSession, type StoredMessage, textOf } from '../rig/opencode/real-session.ts';
import { CLAUDE_CODE, dataOf, onEachOpencode, useWorker } from './stage.ts';

/** Seconds. opencode orders messages by ids that hold its time: 1.18.10 loops on one ahead of it and never answers one behind. */
const OFFSETS = [60, -60];

onEachOpencode('an opencode', (binary) => {
  describe.each(OFFSETS)('whose clock is %d s off ours', (offset) => {
    const worker = useWorker({ binary, fakeClockOffset: offset }, CLAUDE_CODE);

    /** Sends each word, expects it as the answer. */
    async function sendInTurn(session_id: string, ...words: readonly string[]): Promise<void> {
      for (const word of words)
        expect(await worker.data('send', { session_id, message: `echo: ${word}` })).toMatchObject({
          outcome: 'completed',
          text: word,
        });
    }

    /** Nothing runs any more, and each message is stored once, with one answer that the model was asked for once. */
    async function expectOneAnswerEach(session_id: string, words: readonly string[]): Promise<void> {
      expect(await worker.opencode.json('GET', '/session/status')).toEqual({});
      const stored = await worker.opencode.json<readonly StoredMessage[]>('GET', `/session/${session_id}/message`);
      expect(stored.map((message) => [message.info.role, textOf(message)])).toEqual(
        words.flatMap((word) => [
          ['user', `echo: ${word}`],
          ['assistant', word],
        ]),
      );
      const asked = worker.stage.model.requests.filter((one) => one.kind === 'turn' && one.sessionID === session_id);
      expect(asked.map(({ text }) => text)).toEqual(words.map((word) => `echo: ${word}`));
    }

    test('answers each message of a new session once', async () => {
      const session_id = await worker.newSession();
      const words = ['new 1', 'new 2', 'new 3'];
      await sendInTurn(session_id, ...words);
      await expectOneAnswerEach(session_id, words);
    });

    test('answers each message once after messages of its own, and before more of them', async () => {
      const session = await createRealSession(worker.opencode, 'in turn');
      const prompt = async (word: string): Promise<void> => {
        await session.prompt(`echo: ${word}`);
        await session.settled();
      };
      await prompt('its own 1');
      await prompt('its own 2');
      await sendInTurn(session.id, 'ours 1', 'ours 2', 'ours 3');
      await prompt('its own 3');
      await sendInTurn(session.id, 'ours 4');
      const words = ['its own 1', 'its own 2', 'ours 1', 'ours 2', 'ours 3', 'its own 3', 'ours 4'];
      await expectOneAnswerEach(session.id, words);
    });

    test('is listed as any other', async () => {
      const startMs = Date.now();
      const session = await createRealSession(worker.opencode, 'a look at the clock');
      await session.prompt('echo: later');
      const { last } = await session.settled();
      for (const shiftedMs of [session.createdMs, last.info.time.created, idMs(last.info.id)]) {
        const ms = shiftedMs - offset * 1000;
        expect(ms).toBeGreaterThan(startMs - 1000);
        expect(ms).toBeLessThan(Date.now() + 1000);
      }
      expect(dataOf(await worker.server.call('instances'))).toMatchObject({
        instances: [{ name: 'worker', state: 'idle', session: { title: 'a look at the clock' } }],
      });
    });
  });
});

/** The time in an id, in the present span of its 48 bits: milliseconds since the Unix epoch. */
function idMs(id: string): number {
  const span = 2 ** 36;
  const ms = Number(BigInt(`0x${id.slice(4, 16)}`) / 4096n);
  return Math.floor(Date.now() / span) * span + ms;
}

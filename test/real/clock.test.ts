import { describe, expect, test } from 'vitest';

import { createRealSession, type StoredMessage, textOf } from '../rig/opencode/real-session.ts';
import { CLAUDE_CODE, dataOf, onEachOpencode, useWorker } from './stage.ts';

/** Seconds. opencode orders messages by ids with its time: 1.18.10 loops on an id ahead of its clock and never answers one behind it. */
const OFFSETS = [60, -60];

onEachOpencode('an opencode', (binary) => {
  describe.each(OFFSETS)('whose clock is %d s off ours', (offset) => {
    const worker = useWorker({ binary, fakeClockOffset: offset }, CLAUDE_CODE);

    /** Sends the words one after another, and expects each as the answer. */
    async function sendInTurn(session_id: string, ...words: readonly string[]): Promise<void> {
      for (const word of words)
        expect(await worker.data('send', { session_id, message: `echo: ${word}` })).toMatchObject({
          outcome: 'completed',
          text: word,
        });
    }

    /** Expects that no turn runs, and that each message is stored once with one answer from one model request. */
    async function expectOneAnswerEach(session_id: string, words: readonly string[]): Promise<void> {
      expect(await worker.opencode.json('GET', '/session/status')).toEqual({});
      const stored = await worker.opencode.json<readonly StoredMessage[]>('GET', `/session/${session_id}/message`);
      expect(stored.map((message) => [message.info.role, textOf(message)])).toEqual(
        words.flatMap((word) => [
          ['user', `echo: ${word}`],
          ['assistant', word],
        ]),
      );
      const requests = worker.stage.model.requests.filter((one) => one.kind === 'turn' && one.sessionID === session_id);
      expect(requests.map(({ text }) => text)).toEqual(words.map((word) => `echo: ${word}`));
    }

    test('answers each message of a new session once', async () => {
      const session_id = await worker.newSession();
      const words = ['new 1', 'new 2', 'new 3'];
      await sendInTurn(session_id, ...words);
      await expectOneAnswerEach(session_id, words);
    });

    test('answers each message once between messages sent directly to opencode', async () => {
      const session = await createRealSession(worker.opencode, 'in turn');
      const prompt = async (word: string): Promise<void> => {
        await session.prompt(`echo: ${word}`);
        await session.settled();
      };
      await prompt('direct 1');
      await prompt('direct 2');
      await sendInTurn(session.id, 'sent 1', 'sent 2', 'sent 3');
      await prompt('direct 3');
      await sendInTurn(session.id, 'sent 4');
      const words = ['direct 1', 'direct 2', 'sent 1', 'sent 2', 'sent 3', 'direct 3', 'sent 4'];
      await expectOneAnswerEach(session.id, words);
    });

    test('is listed like any other', async () => {
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

/** The time in an id, in milliseconds since the Unix epoch; an id contains only its low 36 bits. */
function idMs(id: string): number {
  const span = 2 ** 36;
  const ms = Number(BigInt(`0x${id.slice(4, 16)}`) / 4096n);
  return Math.floor(Date.now() / span) * span + ms;
}

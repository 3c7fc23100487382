import { expect, test } from 'vitest';

import { expectedReply } from '../rig/model/model-script.ts';
import { until } from '../rig/wait.ts';
import { CLAUDE_CODE, dataOf, progressText, useWorker } from './stage.ts';

const worker = useWorker({}, CLAUDE_CODE);

test.each([
  [
    'the machine of the agent sleeps in the middle of an answer',
    async (release: () => void): Promise<void> => {
      await worker.opencode.kill('SIGSTOP');
      release();
      await worker.opencode.kill('SIGCONT');
    },
  ],
  [
    'our machine sleeps while the answer ends',
    async (release: () => void): Promise<void> => {
      worker.server.kill('SIGSTOP');
      release();
      await expect.poll(() => worker.opencode.json('GET', '/session/status'), { timeout: 30_000 }).toEqual({});
      worker.server.kill('SIGCONT');
    },
  ],
])('%s: the answer arrives complete, with each character once', async (gate, sleep) => {
  const { model } = worker.stage;
  const name = gate.replaceAll(' ', '-');
  const message = `gate-mid ${name}: before it slept, |and after`;
  let seen = '';
  const sending = worker.call('send', { message }, { onProgress: (progress) => (seen += progress.message ?? '') });
  await model.waitForGate(name);
  await until('the first half', () => seen.includes('before it slept,'));
  await sleep(() => model.release(name));
  const sent = await sending;
  expect(dataOf(sent)).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
  expect(progressText(sent)).toBe(expectedReply(message));
  expect(model.turns(message)).toBe(1);
});

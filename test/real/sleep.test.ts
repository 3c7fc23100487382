import { afterAll, beforeAll, expect, test } from 'vitest';

import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import { expectedReply } from '../rig/model-script.ts';
import type { Opencode } from '../rig/opencode.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

let stage: Stage;
let opencode: Opencode;
let server: McpChild;

beforeAll(async () => {
  stage = await openStage();
  opencode = await stage.opencode();
  await stage.register('worker', opencode);
  // Waits for as long as it takes: this is about sleep, not about patience.
  server = await stage.server({ clientInfo: { name: 'claude-code', version: '2.1.329' } });
});
afterAll(() => stage.close());

/** Sends what stops half way, does `sleep` there, and holds the answer to what is stored: whole, and each character once. */
async function throughSleep(gate: string, sleep: () => Promise<void>): Promise<void> {
  const message = `gate-mid ${gate}: before it slept, |and after`;
  let seen = '';
  const sending: Promise<ToolCall> = server.call(
    'send',
    { instance: 'worker', message },
    { onProgress: (progress) => (seen += progress.message ?? '') },
  );
  await stage.model.waitForGate(gate);
  await until('the first half', () => seen.includes('before it slept,'));
  await sleep();
  const { result, progress } = await sending;
  expect(result.structuredContent).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
  expect(progress.map(({ message: part }) => part ?? '').join('')).toBe(expectedReply(message));
  expect(stage.model.turns(message)).toBe(1);
}

test('the agent’s machine sleeps in the middle of an answer', async () => {
  await throughSleep('theirs', async () => {
    await opencode.kill('SIGSTOP');
    stage.model.release('theirs');
    await opencode.kill('SIGCONT');
  });
});

test('our machine sleeps while the answer ends', async () => {
  await throughSleep('ours', async () => {
    server.kill('SIGSTOP');
    stage.model.release('ours');
    await until('the turn to end', async () => {
      const statuses = await opencode.json<Record<string, unknown>>('GET', '/session/status');
      return Object.keys(statuses).length === 0;
    });
    server.kill('SIGCONT');
  });
});

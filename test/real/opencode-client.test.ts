import { afterAll, beforeAll, expect, test } from 'vitest';

import { toolReply } from '../rig/model/model-script.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { createRealSession, type StoredMessage } from '../rig/opencode/real-session.ts';
import { tempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openStage, serverCommand, type Stage } from './stage.ts';

const temp = tempDir('opencode-client');
let stage: Stage;
let chief: Opencode;

beforeAll(async () => {
  stage = await openStage();
  await stage.register('worker', await stage.opencode());
  const environment = { XDG_STATE_HOME: temp.path };
  const fleet = { type: 'local', command: serverCommand(stage), environment, timeout: 60_000 };
  chief = await stage.opencode({ config: { mcp: { fleet } } });
});
afterAll(async () => {
  await stage.close();
  await temp.close();
});

test('an opencode agent finds another instance, sends to it, answers its permission request and reports', async () => {
  const command = 'echo asked and allowed';
  const calls = [
    ['fleet_instances', {}],
    ['fleet_send', { instance: 'worker', message: `bash: ${command}` }],
    ['fleet_respond', { instance: 'worker', reply: 'once' }],
    ['fleet_wait', { instances: ['worker'] }],
  ] as const;
  const session = await createRealSession(chief, 'Chief');
  await session.prompt(`plan: ${JSON.stringify(calls)}`);
  // Both opencodes are cold.
  let messages: readonly StoredMessage[] = [];
  await until(
    () => `the report, after ${JSON.stringify(messages)}`,
    async () => {
      messages = await session.messages();
      return messages.at(-1)?.info.finish === 'stop';
    },
    150_000,
  );
  type ToolPart = { readonly type: string; readonly tool: string; readonly state: { readonly output: string } };
  const tools = messages.flatMap(({ parts }) => parts as readonly object[] as readonly ToolPart[]);
  const outputs = tools.filter(({ type }) => type === 'tool').map(({ tool, state }) => [tool, state.output]);
  expect(outputs).toEqual([
    [calls[0][0], expect.stringContaining('worker: idle')],
    [calls[1][0], expect.stringMatching(/waiting for permission[^]*«bash "echo asked and allowed"»/)],
    [calls[2][0], expect.stringContaining(toolReply('bash', 'asked and allowed'))],
    [calls[3][0], expect.anything()],
  ]);
  expect(JSON.stringify(messages.at(-1)?.parts)).toContain('asked and allowed');
});

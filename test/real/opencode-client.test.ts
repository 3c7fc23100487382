import { afterAll, beforeAll, expect, test } from 'vitest';

import type { Opencode } from '../rig/opencode.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { toolReply } from '../rig/model-script.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

let stage: Stage;
let temp: TempDir;
let worker: Opencode;
let chief: Opencode;

beforeAll(async () => {
  stage = await openStage();
  temp = tempDir('opencode-client');
  worker = await stage.opencode();
  await stage.register('worker', worker);
  chief = await stage.opencode({
    config: {
      mcp: {
        fleet: {
          type: 'local',
          command: [
            process.execPath,
            SERVER_SCRIPT,
            '--registry-dir',
            stage.registry.path,
            '--health-timeout-ms',
            '15000',
          ],
          environment: { XDG_STATE_HOME: temp.path, ...NO_MULTICAST },
          timeout: 60_000,
        },
      },
    },
  });
});
afterAll(async () => {
  await stage.close();
  await temp.close();
});

test('an opencode agent finds another instance, sends to it, meets its permission, settles it and reports', async () => {
  const command = 'echo asked and allowed';
  const calls = [
    ['fleet_instances', {}],
    ['fleet_send', { instance: 'worker', message: `bash: ${command}` }],
    ['fleet_respond', { instance: 'worker', reply: 'once' }],
    ['fleet_wait', { instances: ['worker'] }],
  ];
  const { id } = await chief.json<{ id: string }>('POST', '/session', {});
  await chief.request('POST', `/session/${id}/prompt_async`, {
    parts: [{ type: 'text', text: `plan: ${JSON.stringify(calls)}` }],
  });
  const results = await until(
    'the report',
    async () => {
      const messages = await chief.json<
        {
          info: { finish?: string };
          parts: { type: string; tool?: string; text?: string; state?: { output?: string } }[];
        }[]
      >('GET', `/session/${id}/message`);
      const parts = messages.flatMap((message) => message.parts);
      const report =
        messages.at(-1)?.info.finish === 'stop'
          ? messages.at(-1)?.parts.find(({ type }) => type === 'text')
          : undefined;
      return report?.text !== undefined && { report: report.text, tools: parts.filter(({ type }) => type === 'tool') };
    },
    150_000,
  );
  const outputs = results.tools.map(({ state }) => state?.output ?? '');
  expect(results.tools.map(({ tool }) => tool)).toEqual(calls.map(([tool]) => tool));
  expect(outputs[0]).toContain('worker: idle');
  expect(outputs[1]).toContain(`waiting for permission`);
  expect(outputs[1]).toContain(`«bash "${command}"»`);
  expect(outputs[2]).toContain(toolReply('bash', 'asked and allowed'));
  expect(results.report).toContain('asked and allowed');
});

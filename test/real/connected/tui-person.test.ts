import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { expect, test } from 'vitest';

import { connectedEnvironment, CONNECTED_SCRIPT } from '../../rig/connected-child.ts';
import type { ToolCall } from '../../rig/mcp-child.ts';
import { toolReply } from '../../rig/model-script.ts';
import { openSandbox } from '../../rig/opencode-sandbox.ts';
import { needTmux, openTmux } from '../../rig/tmux.ts';
import { until } from '../../rig/wait.ts';
import { openStage } from '../stage.ts';

const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

test('a person answers at the terminal while a client asks its own person the same', async (context) => {
  needTmux(context);
  await using stage = await openStage();
  await using sandbox = await openSandbox({ model: stage.model });
  await using terminal = await openTmux(
    { ...connectedEnvironment(sandbox, stage.registry.path), INSTANCE_NAME: 'desk' },
    sandbox.directory,
  );
  let isAsked = false;
  let isTakenAway = false;
  const server = await stage.server({
    clientInfo: { name: 'claude-code', version: '2.1.329' },
    capabilities: { elicitation: { form: {} } },
    prepare: (client) =>
      client.setRequestHandler(ElicitRequestSchema, (_, { signal }) => {
        isAsked = true;
        signal.addEventListener('abort', () => (isTakenAway = true));
        return new Promise(() => {});
      }),
  });
  await terminal.type(`${process.execPath} ${CONNECTED_SCRIPT}`, 'Enter');
  await terminal.shows(/Ask anything/);
  await terminal.type('bash: echo by hand', 'Enter');
  await terminal.shows(/Allow once/);

  // `wait` reaches the agent's question, and asks the client's person in the same call.
  const waiting = server.call('wait', {});
  await until('the client’s person to be asked', () => isAsked);
  await terminal.type('', 'Enter');
  expect(data(await waiting)).toMatchObject({
    turns: [
      {
        instance: 'desk',
        outcome: 'completed',
        text: toolReply('bash', 'by hand'),
        settled: expect.stringMatching(/^settled elsewhere.*not by this call.*echo by hand/) as string,
      },
    ],
  });
  await until('the question to be taken away', () => isTakenAway);
  await terminal.shows(/bash returned: by hand/);
  expect(data(await server.call('instances'))).toMatchObject({ instances: [{ name: 'desk', state: 'idle' }] });
});

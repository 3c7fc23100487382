import { expect, test } from 'vitest';

import { SHELL_WORDS } from '../../src/commands/terminal/shell-words.ts';
import { messageIn } from '../../src/model/advice.ts';
import { send } from '../../src/operations/send/send.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { createSession } from '../../src/operations/sessions/sessions.ts';
import { World } from '../fleet/world.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';

test('a whole OpenCode 2 service is idle if nothing runs, and send requires a session or a directory', async () => {
  await using opencode = await startFakeOpencode2();
  opencode.addSession({ directory: '/home/ada/web' });
  const credential = { username: 'opencode', password: opencode.password };
  await using world = new World({ resolveCredential: () => Promise.resolve(credential) });
  world.register('desk', opencode, { pinned: true });
  await world.start();
  const runtime = testRuntime(world.fleet);
  const { data } = await wait(runtime, { instances: ['desk'], for: 'any' }, testCall());
  expect(data.turns).toMatchObject([{ outcome: 'idle', reason: 'nothing runs in any of its directories' }]);
  const sendResult = send(runtime, { instance: 'desk', message: 'x', agent: 'build' }, testCall());
  expect(messageIn(SHELL_WORDS, await sendResult.catch((error: unknown) => error))).toBe(
    'desk is an OpenCode 2 service as a whole. Give SESSION (opencode-mcp sessions shows them), or name the instance of one directory. (nothing was sent by this call)',
  );
  await expect(createSession(runtime, { instance: 'desk' }, testCall())).rejects.toThrow(
    /no session was created\. Name the instance of one directory, or give directory/,
  );
});

import { expect, test } from 'vitest';

import { SHELL_WORDS } from '../../src/commands/terminal/shell-words.ts';
import { messageIn } from '../../src/model/advice.ts';
import type { Connected, Runtime } from '../../src/operations/runtime.ts';
import { checkChoice } from '../../src/operations/send/send-choice.ts';
import { createSession } from '../../src/operations/sessions/sessions.ts';
import { wait } from '../../src/operations/send/wait.ts';
import { World } from '../fleet/world.ts';
import { startFakeOpencode2 } from '../rig/opencode-2/fake-opencode-2.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { testCall, testRuntime } from '../rig/runtime.ts';

/** An OpenCode 2 as a whole, which is asked for nothing. */
const reached = { instance: { name: 'desk:service' }, directory: '', serverDirectory: '' };
const runtime = {
  clock: leapingClock(),
  fleet: {
    ready: async () => {},
    resolve: () => reached.instance,
    reach: async () => ({ ...reached, connection: {} }),
  },
} as unknown as Runtime;

test('a whole service has no agents: the error advises a shell to give a session', async () => {
  const checking = checkChoice(
    runtime,
    { ...reached, api: {} } as unknown as Connected,
    { agent: 'build' },
    testCall(),
  );
  const error: unknown = await checking.catch((reason: unknown) => reason);
  expect(messageIn(SHELL_WORDS, error)).toBe(
    'desk:service is an OpenCode 2 service as a whole. Give SESSION (opencode-mcp sessions shows them), or name the instance of one directory.',
  );
});

test('a new session of a whole service needs a directory, not a session', async () => {
  await expect(createSession(runtime, { instance: 'desk:service' }, testCall())).rejects.toThrow(
    /no session was created\. Name the instance of one directory, or give directory/,
  );
});

test('a whole service in which nothing runs is idle, not without sessions', async () => {
  await using opencode = await startFakeOpencode2();
  opencode.addSession({ directory: '/home/ada/web' });
  const credential = { username: 'opencode', password: opencode.password };
  await using world = new World({ resolveCredential: () => Promise.resolve(credential) });
  world.register('desk', opencode, { pinned: true });
  await world.start();
  const { data } = await wait(testRuntime(world.fleet), { instances: ['desk'], for: 'any' }, testCall());
  expect(data.turns).toMatchObject([{ outcome: 'idle', reason: 'nothing runs in any of its directories' }]);
});

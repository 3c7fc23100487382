import { expect, test } from 'vitest';

import { SHELL_WORDS } from '../../src/commands/terminal/shell-words.ts';
import { messageIn } from '../../src/model/advice.ts';
import type { Connected, Runtime } from '../../src/operations/runtime.ts';
import { checkChoice } from '../../src/operations/send/send-choice.ts';
import { createSession } from '../../src/operations/sessions/sessions.ts';
import { leapingClock } from '../rig/leaping-clock.ts';
import { testCall } from '../rig/runtime.ts';

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

test('a whole service has no agents: a shell is told to give a session', async () => {
  const checking = checkChoice(
    runtime,
    { ...reached, api: {} } as unknown as Connected,
    { agent: 'build' },
    testCall(),
  );
  const error: unknown = await checking.catch((reason: unknown) => reason);
  expect(messageIn(SHELL_WORDS, error)).toBe(
    'desk:service is an OpenCode 2 with all of its directories. Give SESSION (opencode-mcp sessions shows them), or name the instance of one directory.',
  );
});

test('a new session of a whole service needs a directory, not a session', async () => {
  await expect(createSession(runtime, { instance: 'desk:service' }, testCall())).rejects.toThrow(
    /no session was created\. Name the instance of one directory, or give directory/,
  );
});

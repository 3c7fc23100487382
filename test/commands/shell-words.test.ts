import { describe, expect, test } from 'vitest';

import { exitOf } from '../../src/commands/terminal/exit-codes.ts';
import { safeToShow, shellWord } from '../../src/base/plain-text.ts';
import { inShellWords, saysNothingWasSent } from '../../src/commands/terminal/shell-words.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';

describe('advice of the operations in words of the shell', () => {
  test.each([
    [
      'Run opencode-mcp doctor web where this server runs: it says whether a password was found, and where the right one goes. A change of the configuration file or the environment takes a restart of this server. (nothing was sent)',
      'Run opencode-mcp doctor web: it says whether a password was found, and where the right one goes. (nothing was sent)',
    ],
    [
      'No instance fits "x". Known instances: a (h, idle). Call list_instances for details, or refresh_instances to look again.',
      'No instance fits "x". Known instances: a (h, idle). opencode-mcp list shows more.',
    ],
    [
      'Wait and read, send to another session (create_session), or send with when_busy: queue (after what runs) or abort: true (stops it first).',
      'Wait and read, or send with --queue (after what runs) or --interrupt (stops it first).',
    ],
    [
      'Look before sending it again. To see how it goes on: wait with instances ["my app"] or read with instance "my app", session_id ses_1 and message_id msg_1.',
      'Look before sending it again. To see how it goes on: opencode-mcp wait, or opencode-mcp read.',
    ],
    ['Call instances to see how it is, then call again.', 'Run opencode-mcp list to see how it is, then run it again.'],
    [
      'respond needs reply: once or reject. Nothing was answered.',
      'respond needs --reply once or reject. Nothing was answered.',
    ],
  ])('%s', (said, words) => expect(inShellWords(said)).toBe(words));

  test('no name of a tool that is no command is left', () => {
    const commands = ['send', 'read', 'wait', 'respond'];
    const names = TOOLS.filter(({ toolset }) => toolset !== 'inspect').map(({ name }) => name);
    for (const name of names.filter((one) => one.includes('_') && !/(?:fork|rename|delete)/.test(one)))
      expect(inShellWords(`See ${name} for more.`), name).not.toContain(name);
    for (const name of commands) expect(names).toContain(name);
  });

  test('what an instance says stays as it is', () => {
    expect(inShellWords('opencode says "call list_instances again"; «get_status»')).toBe(
      'opencode says "call list_instances again"; «get_status»',
    );
  });
});

test('only an operation says that nothing was sent, not an instance', () => {
  expect(saysNothingWasSent('worker: nothing was sent: it is busy')).toBe(true);
  expect(saysNothingWasSent('cannot be driven: x. Nothing was sent; call again.')).toBe(true);
  expect(saysNothingWasSent('cannot be told: opencode says "nothing was sent"')).toBe(false);
  expect(saysNothingWasSent('it waits for «nothing was sent»')).toBe(false);
});

test('a name in a command that is copied is one word, whatever a machine calls itself', () => {
  expect(shellWord('laptop-web@desk:1')).toBe('laptop-web@desk:1');
  // Swept again, it is the same.
  const hostile = shellWord("a\u001b['\\\u001b['; reboot\n#");
  expect(safeToShow(hostile)).toBe(hostile);
  expect(hostile).toMatch(/^'[^\n]*'$/);
  expect(shellWord('$(reboot)')).toBe("'$(reboot)'");
  expect(shellWord("it's; ls")).toBe(String.raw`'it'\''s; ls'`);
});

test.each([
  ['completed', 0],
  ['idle', 0],
  ['failed', 1],
  ['aborted', 1],
  ['interrupted', 1],
  ['offline', 1],
  ['waiting', 3],
  ['running', 124],
  ['retrying', 124],
  ['stalled', 124],
])('%s is %d', (outcome, code) => expect(exitOf(outcome)).toBe(code));

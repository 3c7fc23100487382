import { describe, expect, test } from 'vitest';

import { checkServiceArguments } from '../../../src/connected/service/service-arguments.ts';

const check = (forOpencode: readonly string[], options: object = {}): void =>
  checkServiceArguments({ headless: false, withPassword: true, forOpencode, ...options });

describe('the arguments for the service of OpenCode 2', () => {
  test.each([[['--standalone']], [['--standalone=true']]])(
    '%j is refused, since it would start a second server on the same sessions',
    (args) => {
      expect(() => check(args)).toThrow('two turns could run in one session');
    },
  );

  test('--mdns is refused with advice', () => {
    expect(() => check(['--mdns'])).toThrow('--lan puts the service on the LAN');
  });

  test('--no-password is refused, and so are arguments for opencode with --headless', () => {
    expect(() => check([], { withPassword: false })).toThrow('always has a password');
    expect(() => check(['-c'], { headless: true })).toThrow('passes nothing on');
  });

  test('arguments of the terminal are accepted', () => {
    check(['.', '-c', '-s', 'ses_1', '--auto', '-m', 'a/b', '--prompt', '--standalone']);
    check([], { headless: true });
  });
});

import { describe, expect, test } from 'vitest';

import { checkServiceArguments } from '../../../src/connected/service/service-arguments.ts';

const check = (forOpencode: readonly string[], more: object = {}): void =>
  checkServiceArguments({ headless: false, withPassword: true, forOpencode, ...more });

describe('with the service of OpenCode 2', () => {
  test.each([[['--standalone']], [['--standalone=true']]])(
    '%j would be a second server on the same sessions',
    (args) => {
      expect(() => check(args)).toThrow('two turns could run in one session');
    },
  );

  test('--mdns is refused with advice', () => {
    expect(() => check(['--mdns'])).toThrow('--lan puts the service on the LAN');
  });

  test('flags of ours that make no sense are refused', () => {
    expect(() => check([], { withPassword: false })).toThrow('always has a password');
    expect(() => check(['-c'], { headless: true })).toThrow('passes nothing on');
  });

  test("the terminal's own arguments pass", () => {
    check(['.', '-c', '-s', 'ses_1', '--auto', '-m', 'a/b', '--prompt', '--standalone']);
    check([], { headless: true });
  });
});

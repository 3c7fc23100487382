import { describe, expect, test } from 'vitest';

import { readCommandLine } from '../../src/connected/arguments.ts';

describe('the command line', () => {
  test.each([
    [[], { subcommand: 'start', own: [], forOpencode: [] }],
    [['--headless'], { subcommand: 'start', own: ['--headless'], forOpencode: [] }],
    [['start', '--headless'], { subcommand: 'start', own: ['--headless'], forOpencode: [] }],
    [['--', 'status'], { subcommand: 'start', own: [], forOpencode: ['status'] }],
    [
      ['--headless', '--', '-s', 'x', '--', 'y'],
      { subcommand: 'start', own: ['--headless'], forOpencode: ['-s', 'x', '--', 'y'] },
    ],
    [['status', '--json'], { subcommand: 'status', own: ['--json'], forOpencode: [] }],
  ])('%j', (argv, expected) => {
    expect(readCommandLine(argv)).toEqual(expected);
  });

  test.each([
    [
      ['stauts'],
      'unknown subcommand "stauts": expected none (start opencode) or one of start, status, cleanup, sessions',
    ],
    [['cleanup', '--', 'x'], 'cleanup takes nothing after --'],
    [['--', '--port', '4096'], '"--port": opencode-connected chooses'],
    [['--', '--port=4096'], '"--port=4096": opencode-connected chooses'],
    [['--', '--hostname=0.0.0.0'], '"--hostname=0.0.0.0": opencode-connected chooses'],
  ])('%j is refused', (argv, message) => {
    expect(() => readCommandLine(argv)).toThrow(message);
  });

  test('what only begins like an address is passed on', () => {
    expect(readCommandLine(['--', '--portal']).forOpencode).toEqual(['--portal']);
  });
});

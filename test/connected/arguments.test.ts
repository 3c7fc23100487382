import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';

import { type CommandLine, readCommandLine, withoutProject } from '../../src/connected/arguments.ts';
import { COMMANDS, PLAIN_OPTIONS, VALUE_OPTIONS } from '../../src/connected/opencode-words.ts';
import { isMissing, OPENCODES, PREVIEW_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { tempDir } from '../rig/temp.ts';

/** Reads a command line where `../other` and `run`, also an opencode subcommand, are directories. */
const read = (argv: readonly string[]): CommandLine =>
  readCommandLine(argv, (word) => ['.', '../other', 'run'].includes(word));

describe('a start of opencode', () => {
  test.each<[argv: string[], own: string[], forOpencode: string[], project?: string]>([
    [[], [], []],
    [['--headless'], ['--headless'], []],
    [['start', '--headless'], ['--headless'], []],
    [['.'], [], ['.'], '.'],
    [['--continue'], [], ['--continue']],
    [['-c', '--lan', '../other'], ['--lan'], ['-c', '../other'], '../other'],
    [['-m', 'run', '--prompt', '--lan', '.'], [], ['-m', 'run', '--prompt', '--lan', '.'], '.'],
    [['--model=x', '--future-option'], [], ['--model=x', '--future-option']],
    [
      ['--registry-dir', '/r', '--lan-port=1', '-s', 'x'],
      ['--registry-dir', '/r', '--lan-port=1'],
      ['-s', 'x'],
    ],
    [['--', '../other', '--lan'], [], ['../other', '--lan'], '../other'],
    [['--headless', '--', '-s', 'x', '--', 'y'], ['--headless'], ['-s', 'x', '--', 'y']],
    // Only begins like `--port`.
    [['--portal'], [], ['--portal']],
    // Too short for a guess that `--lan` was meant.
    [['--lane'], [], ['--lane']],
  ])('%j', (argv, own, forOpencode, project) => {
    expect(read(argv)).toEqual({ kind: 'start', own, forOpencode, project });
  });
});

test.each([
  [['status', '--json'], { kind: 'status', own: ['--json'] }],
  [['--help'], { kind: 'help' }],
  [['-h'], { kind: 'help' }],
  [['--version'], { kind: 'version' }],
  [['-v'], { kind: 'version' }],
  [['cleanup', '--help'], { kind: 'help' }],
])('%j is handled by opencode-connected', (argv, expected) => {
  expect(read(argv)).toEqual(expected);
});

test('removing the directory keeps an equal value of an option', () => {
  expect(withoutProject(['--agent', 'build', 'build', '--print-logs'], 'build')).toEqual([
    '--agent',
    'build',
    '--print-logs',
  ]);
  expect(withoutProject(['--print-logs'], undefined)).toEqual(['--print-logs']);
});

describe('a command line that opens no terminal on a project runs unchanged', () => {
  test.each([
    [['run', 'fix', 'it', '--lan', '--', '--headless']],
    [['--print-logs', '--log-level', 'DEBUG', 'run', 'hi']],
    [['auth', 'login', '--help']],
    [['session', 'list', '--json']],
    [['serve', '--port', '4096']],
    [['attach', 'http://127.0.0.1:4096']],
    [['--mini', '-c']],
    [['--server', 'http://127.0.0.1:4096', '.']],
    // Not a directory: a future subcommand, or a mistake that opencode reports.
    [['teleport', '--now']],
    [['/no/such/project']],
  ])('%j', (argv) => {
    expect(read(argv)).toEqual({ kind: 'plain', forOpencode: argv });
  });

  test.each([
    [['--', '--help'], ['--help']],
    [['--', '--version'], ['--version']],
    [
      ['run', '--version'],
      ['run', '--version'],
    ],
    [['--', 'status'], ['status']],
  ])('%j, except for a leading --', (argv, forOpencode) => {
    expect(read(argv)).toEqual({ kind: 'plain', forOpencode });
  });
});

test.each([
  [['stattus'], '"stattus": neither a directory nor a subcommand of opencode-connected; did you mean status?'],
  [['cleanup', '--', 'x'], 'cleanup takes nothing after --'],
  [
    ['--headles'],
    '"--headles": unknown option; did you mean --headless? An option of opencode of that name goes after --',
  ],
  [['--lan', 'run', 'hi'], '"--lan" is for a start of opencode in a project; "run" runs without opencode-connected'],
  [['--headless', 'nowhere'], '"nowhere" is not a directory'],
  [['--port', '4096'], '"--port": opencode-connected chooses'],
  [['--', '--port=4096'], '"--port=4096": opencode-connected chooses'],
  [['.', '--hostname=0.0.0.0'], '"--hostname=0.0.0.0": opencode-connected chooses'],
])('%j is refused', (argv, message) => {
  expect(() => read(argv)).toThrow(message);
});

describe.each([...OPENCODES, { name: 'the preview of OpenCode 2', binary: PREVIEW_OPENCODE }])(
  'the help of $name',
  ({ binary }) => {
    test.skipIf(isMissing(binary))('lists no unknown subcommand or option with a value', async () => {
      await using home = tempDir('opencode-help');
      const env = { PATH: process.env['PATH'] ?? '', HOME: home.path };
      const { stdout, stderr } = await promisify(execFile)(binary, ['--help'], { env });
      const help = stdout + stderr;
      const commands = [...help.matchAll(/^ {2}opencode (\w+) .*?(?:\[aliases: (\w+)\])?$/gm)].flatMap((match) =>
        match.slice(1),
      );
      const [, subcommands = ''] = help.split('SUBCOMMANDS\n');
      commands.push(...[...subcommands.matchAll(/^ {2}(\w+) /gm)].map(([, name = '']) => name));
      expect(commands.length).toBeGreaterThan(4);
      expect(commands.filter((name) => name !== undefined && !COMMANDS.has(name))).toEqual([]);
      const options = [...help.matchAll(/^ +(?:(-\w), )?(--[\w-]+) [^[]*\[(?:string|number|array)\]/gm)].flatMap(
        (match) => match.slice(1),
      );
      expect(options.filter((name) => name !== undefined && !VALUE_OPTIONS.has(name))).toEqual([]);
      const [, global = ''] = /GLOBAL FLAGS\n([^]*?)\n\n/.exec(help) ?? [];
      const flags = [...global.matchAll(/--[\w-]+/g)].map(([name]) => name);
      expect(flags.filter((name) => !VALUE_OPTIONS.has(name) && !PLAIN_OPTIONS.has(name))).toEqual([]);
    });
  },
);

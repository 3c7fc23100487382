import { describe, expect, it } from 'vitest';
import { readFlags } from '../../src/config/flags.ts';
import { load, problemsOf } from './load-case.ts';

describe('flags', () => {
  it('a repeated list flag adds up; for other flags the last one counts', () => {
    const command = { flags: { client: 'list', relay: 'string' }, positionals: false } as const;
    const argv = ['--client', 'codex', '--relay', 'a', '--client=zed,cursor', '--relay', 'b'];
    const { flags } = readFlags(argv, 'opencode-mcp', command, []);
    expect(flags.get('client')?.text).toBe('codex,zed,cursor');
    expect(flags.get('relay')?.text).toBe('b');
  });

  it.each([
    { name: 'an unknown flag', argv: ['--nonsense'], expected: ['--nonsense: unknown flag, see --help'] },
    {
      name: 'a near miss',
      argv: ['--registy-dir', '/x'],
      expected: ['--registy-dir: unknown flag, see --help; did you mean --registry-dir?'],
    },
    {
      name: 'other dashes',
      argv: ['--readonly'],
      expected: ['--readonly: unknown flag, see --help; did you mean --read-only?'],
    },
    { name: 'a cluster of short flags is one mistake', argv: ['-hunter2'], expected: ['-h: unknown flag, see --help'] },
    {
      name: 'no value',
      argv: ['--transport'],
      expected: ['--transport: expected a value, as in --transport=VALUE; see --help'],
    },
    {
      name: 'a flag where the value should be',
      argv: ['--transport', '--read-only'],
      expected: ['--transport: expected a value, as in --transport=VALUE; see --help'],
    },
    {
      name: 'a value after a negated switch',
      argv: ['--no-read-only=1'],
      expected: ['--no-read-only: expected no value; see --help'],
    },
    {
      name: 'a negated flag that is no switch',
      argv: ['--no-transport'],
      expected: ['--no-transport: unknown flag, see --help; did you mean --transport?'],
    },
    { name: 'an argument', argv: ['lsit'], expected: ['unexpected argument "lsit"; see --help'] },
    {
      name: 'an argument after --',
      argv: ['--', '--read-only'],
      expected: ['unexpected argument "--read-only"; see --help'],
    },
    {
      name: 'several mistakes',
      argv: ['-x', 'a', 'b', '--y=1', 'c'],
      expected: [
        '-x: unknown flag, see --help',
        'unexpected argument "b"; see --help',
        '--y: unknown flag, see --help',
        'unexpected argument "c"; see --help',
      ],
    },
  ])('$name', ({ argv, expected }) => {
    expect(problemsOf({ argv })).toEqual(expected);
  });

  it.each([
    { name: 'apart', argv: ['--password', 'hunter2'] },
    { name: 'joined', argv: ['--password=hunter2'] },
    { name: 'short', argv: ['-p', 'hunter2'] },
    { name: 'short and joined', argv: ['-phunter2'] },
    { name: 'with no name at all', argv: ['--=hunter2'] },
  ])('a password given as a flag is not shown: $name', ({ argv }) => {
    const text = problemsOf({ argv }).join('\n');
    expect(text).toContain('unknown flag');
    expect(text).not.toContain('hunter2');
    expect(text).not.toContain('-u');
  });
});

describe("a subcommand's own arguments", () => {
  const command = { flags: { json: 'boolean', since: 'string' }, positionals: true } as const;

  it('are returned with the settings', () => {
    const loaded = load({ argv: ['api', '--json', '--read-only', '--since', '5m', 'web'], command });
    expect(loaded.flags).toEqual(
      new Map([
        ['json', 'true'],
        ['since', '5m'],
      ]),
    );
    expect(loaded.positionals).toEqual(['api', 'web']);
    expect(loaded.settings.readOnly).toBe(true);
  });

  it('are suggested for a misspelled flag', () => {
    expect(problemsOf({ argv: ['--jsson'], command: { ...command, positionals: false } })).toEqual([
      '--jsson: unknown flag, see --help; did you mean --json?',
    ]);
  });
});

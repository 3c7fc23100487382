import { describe, expect, it } from 'vitest';
import { readFlags } from '../../src/config/flags.ts';
import { load, problemsOf } from './load-case.ts';

describe('flags', () => {
  it('joins the values of a repeated list flag, and takes the last value of any other flag', () => {
    const command = { flags: { client: 'list', relay: 'string' }, positionals: false } as const;
    const argv = ['--client', 'codex', '--relay', 'a', '--client=zed,cursor', '--relay', 'b'];
    const { flags } = readFlags([...argv, '--read-only', '--no-read-only'], 'opencode-mcp', command, []);
    expect(Object.fromEntries(flags)).toMatchObject({
      client: { text: 'codex,zed,cursor' },
      relay: { text: 'b' },
      'read-only': { text: 'false' },
    });
  });

  const unknown = 'unknown flag, see --help';
  it.each([
    [['--nonsense'], `--nonsense: ${unknown}`],
    [['--registy-dir', '/x'], `--registy-dir: ${unknown}; did you mean --registry-dir?`],
    [['--readonly'], `--readonly: ${unknown}; did you mean --read-only?`],
    [['--no-transport'], `--no-transport: ${unknown}; did you mean --transport?`],
    [['--transport'], '--transport: expected a value, as in --transport=VALUE; see --help'],
    [['--transport', '--read-only'], '--transport: expected a value, as in --transport=VALUE; see --help'],
    [['--no-read-only=1'], '--no-read-only: expected no value; see --help'],
    [['lsit'], 'unexpected argument "lsit"; see --help'],
    [['--', '--read-only'], 'unexpected argument "--read-only"; see --help'],
    // A word after an unknown flag may be a secret, and a cluster of short flags is one mistake.
    [['--password', 'hunter2'], `--password: ${unknown}`],
    [['--password=hunter2'], `--password: ${unknown}`],
    [['-p', 'hunter2'], `-p: ${unknown}`],
    [['-phunter2'], `-p: ${unknown}`],
    [['--=hunter2'], `--: ${unknown}`],
  ])('rejects %j: %s', (argv, expected) => {
    expect(problemsOf({ argv })).toEqual([expected]);
  });

  it('reports every mistake', () => {
    expect(problemsOf({ argv: ['-x', 'a', 'b', '--y=1', 'c'] })).toEqual([
      `-x: ${unknown}`,
      'unexpected argument "b"; see --help',
      `--y: ${unknown}`,
      'unexpected argument "c"; see --help',
    ]);
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

import { execFileSync } from 'node:child_process';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { readBashLine } from '../../../src/commands/completion/bash-line.ts';
import { candidates } from '../../../src/commands/completion/candidates.ts';
import { knownNames, rememberNames } from '../../../src/commands/completion/known-names.ts';
import { HELP_TOPICS, USAGES } from '../../../src/commands/terminal/help.ts';
import type { Snapshot } from '../../../src/model/instance.ts';
import { tempDir } from '../../rig/temp.ts';

const BREAKS = ' \t\n"\'@><=;|&(:';

test.each([
  ['opencode-mcp read na', ['opencode-mcp', 'read'], 'na', 'name\\ x', 'name x'],
  ['opencode-mcp read ', ['opencode-mcp', 'read'], '', 'a', 'a'],
  ['opencode-mcp read two\\ w', ['opencode-mcp', 'read'], 'two w', 'two\\ words', 'two words'],
  ['opencode-mcp read "two w', ['opencode-mcp', 'read'], 'two w', 'two \\$w', 'two $w'],
  ['opencode-mcp read "a', ['opencode-mcp', 'read'], 'a', `a"'!'"b`, 'a!b'],
  ["opencode-mcp read 'it", ['opencode-mcp', 'read'], 'it', String.raw`it'\''s`, "it's"],
  // bash inserts the replacement after the colon or the quote.
  ['opencode-mcp open desk:s', ['opencode-mcp', 'open'], 'desk:s', 'service', 'desk:service'],
  ['opencode-mcp open a\\:b', ['opencode-mcp', 'open'], 'a:b', 'a:b\\;', 'a:b;'],
  ['opencode-mcp open de"sk:s', ['opencode-mcp', 'open'], 'desk:s', 'sk:service', 'desk:service'],
  ['opencode-mcp read "two words" ses', ['opencode-mcp', 'read', 'two words'], 'ses', 'ses_1', 'ses_1'],
  ['cd x && opencode-mcp re', ['opencode-mcp'], 're', 'read', 'read'],
  ['opencode-mcp read ~', ['opencode-mcp', 'read'], '~', '\\~a', '~a'],
])('readBashLine splits %s, and quotes the replacement', (line, words, current, replaced, text) => {
  const read = readBashLine(line, BREAKS);
  expect(read).toMatchObject({ words, current });
  expect(read.replacement(text)).toBe(replaced);
});

function complete(line: string): Promise<readonly string[]> {
  const words = line.split(' ');
  const names = (): Promise<readonly string[]> => Promise.resolve(['one', 'two']);
  const current = words.at(-1) ?? '';
  return candidates({ words: words.slice(0, -1), current, commands: USAGES, topics: HELP_TOPICS, names });
}

test.each([
  ['list ', ['one', 'two']],
  ['ls ', ['one', 'two']],
  ['wait one ', ['two']],
  ['read ', ['one', 'two']],
  ['read one ', []],
  ['send --session ses_1 ', ['one', 'two']],
  ['send --session ', []],
  ['send one ', []],
  ['respond one --reply ', ['once', 'reject']],
  ['open -', ['--print', '--help']],
  ['init --re', ['--yes', '--client', '--relay', '--remove', '--print', '--json', '--help']],
  ['completion ', ['bash', 'zsh', 'fish']],
  ['help ', HELP_TOPICS],
  ['send -- ', []],
  ['unknown ', []],
  ['-', ['--help', '--version']],
])('%j is completed by %j', async (line, expected) => {
  expect(await complete(line)).toEqual(expected);
});

test('the first word is completed by every command', async () => {
  expect(await complete('')).toEqual(
    expect.arrayContaining(['list', 'ls', 'attach', 'open', 'init', 'completion', 'help']),
  );
});

function snapshotOf(names: readonly string[], status: 'ok' | 'pending'): Snapshot {
  return { instances: names.map((name) => ({ name })), sources: [{ name: 'x', status }] } as unknown as Snapshot;
}

test('names that can be typed are stored for this user only, once every source has answered', async () => {
  const temp = tempDir('opencode-mcp-names');
  onTestFinished(() => temp.close());
  const [stateDir, registry] = ['state', 'registry'].map((name) => join(temp.path, name)) as [string, string];
  const known = (): Promise<readonly string[]> =>
    knownNames({ stateDir, registryDir: { path: registry, explicit: true } });
  expect(await known()).toEqual([]);
  await rememberNames(stateDir, snapshotOf(['worker', '-x', 'a\u001bb', 'line\nbreak', ''], 'ok'));
  expect(await known()).toEqual(['worker']);
  await rememberNames(stateDir, snapshotOf([], 'pending'));
  expect(await known()).toEqual(['worker']);
  const file = join(stateDir, 'names.json');
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  await mkdir(registry, { mode: 0o700 });
  await writeFile(join(registry, 'a.json'), JSON.stringify({ name: 'registered', port: 4096 }));
  await writeFile(join(registry, 'b.json'), '{"name": "half');
  expect(await known()).toEqual(['registered', 'worker']);
  await writeFile(file, (await readFile(file, 'utf8')).slice(0, 5));
  expect(await known()).toEqual(['registered']);
});

test('a named pipe in place of the stored names does not block', async () => {
  const temp = tempDir('known-names');
  onTestFinished(() => temp.close());
  const stateDir = temp.path;
  execFileSync('mkfifo', [join(stateDir, 'names.json')]);
  const registryDir = { path: join(stateDir, 'registry'), explicit: true };
  expect(await knownNames({ stateDir, registryDir })).toEqual([]);
  await rememberNames(stateDir, snapshotOf(['worker'], 'ok'));
  expect(await knownNames({ stateDir, registryDir })).toEqual(['worker']);
});

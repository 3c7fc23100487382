import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import type { ReaderWords } from '../../src/model/advice.ts';
import { safeToShow, shellWord } from '../../src/base/plain-text.ts';
import { exitOf, exitOfError } from '../../src/commands/terminal/exit-codes.ts';
import { SHELL_WORDS } from '../../src/commands/terminal/shell-words.ts';
import { QueryError, UnreachableError } from '../../src/fleet/fleet.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { NotSentError, OperationError } from '../../src/operations/answer.ts';
import { PAGE_WORDS } from '../../src/page/page-words.ts';

/** Without tools like `send` and `read`, whose names are also English words and commands. */
const TOOL_NAMES = TOOLS.map(({ name }) => name).filter((name) => name.includes('_'));
const NAMES_A_TOOL = new RegExp(String.raw`\b(?:${TOOL_NAMES.join('|')})\b`);
/** Matches the name of a tool argument. */
const NAMES_AN_ID = /\b(?:message|request|session)_id\b/;

describe('advice', () => {
  const sentences = ({ sessionsOf, respondTo, follow, doctor, reply, ...phrases }: ReaderWords): readonly string[] => [
    ...Object.values(phrases),
    sessionsOf('a'),
    respondTo('a', 'per_1'),
    follow('a', 'ses_1', 'msg_1'),
    doctor('a'),
    reply('once'),
  ];

  test.each([
    ['a shell', SHELL_WORDS],
    ['the page', PAGE_WORDS],
  ])('for %s names no tool and no tool argument', (_, words) => {
    expect(sentences(words).join('\n')).not.toMatch(NAMES_A_TOOL);
    expect(sentences(words).join('\n')).not.toMatch(NAMES_AN_ID);
  });

  test('names tools only through `ReaderWords`, except in operations that neither a shell nor the page calls', () => {
    const calledOnlyByTools = /(?:^|\/)(?:inspect\/|listing\/status|sessions\/session-changes|sessions\/sessions\.ts)/;
    const files = ['src/operations', 'src/fleet']
      .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((path) => join(folder, path)))
      .filter((path) => path.endsWith('.ts') && !calledOnlyByTools.test(path));
    expect(files.length).toBeGreaterThan(50);
    const lines = files.flatMap((path) =>
      readFileSync(path, 'utf8')
        .split('\n')
        .map((line) => `${path}: ${line}`),
    );
    const isComment = (line: string): boolean => /: *(?:\/\*\*|\*|\/\/)/.test(line);
    expect(lines.filter((line) => NAMES_A_TOOL.test(line) && !isComment(line))).toEqual([]);
  });
});

test.each([
  ['a message that was not sent', new NotSentError('alpha is busy'), 4],
  ['a message that was not sent because no instance fits', new NotSentError('x', { cause: new QueryError('none') }), 1],
  ['an instance error that quotes our words', new OperationError('opencode says "nothing was sent"'), 1],
  ['a read from an unreachable instance', new UnreachableError('gone'), 1],
])('%s has its exit code', (_, error, code) => expect(exitOfError(error)).toBe(code));

test('advice for a shell quotes names for the shell', () => {
  const { sessionsOf, respondTo, follow, doctor } = SHELL_WORDS;
  const name = '$(reboot)';
  for (const advice of [sessionsOf(name), respondTo(name, 'per_1'), follow(name, 'ses_1', undefined), doctor(name)]) {
    expect(advice).toContain("'$(reboot)'");
    expect(advice.replaceAll("'$(reboot)'", '')).not.toContain('reboot');
  }
});

test('`shellWord` makes one shell word of any machine name', () => {
  expect(shellWord('laptop-web@desk:1')).toBe('laptop-web@desk:1');
  // Cleaning a quoted word again changes nothing.
  const hostile = shellWord("a\u001b['\\\u001b['; reboot\n#");
  expect(safeToShow(hostile)).toBe(hostile);
  expect(hostile).toMatch(/^'[^\n]*'$/);
  expect(shellWord('$(reboot)')).toBe("'$(reboot)'");
  expect(shellWord("it's; ls")).toBe(String.raw`'it'\''s; ls'`);
});

test('each outcome has its exit code', () => {
  const codes = { completed: 0, idle: 0, failed: 1, aborted: 1, interrupted: 1, offline: 1, waiting: 3 };
  const running = { running: 124, retrying: 124, stalled: 124 };
  for (const [outcome, code] of Object.entries({ ...codes, ...running })) expect(exitOf(outcome), outcome).toBe(code);
});

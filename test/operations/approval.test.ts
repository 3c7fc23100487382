import { describe, expect, test } from 'vitest';

import type { ApprovalRule, Approver } from '../../src/config/settings.ts';
import { CUT_MARK } from '../../src/http/json-cutter.ts';
import type { WaitingRequest } from '../../src/opencode/waiting.ts';
import { approverOf } from '../../src/operations/respond/approval.ts';

const request = (permission: string, patterns: readonly string[], command?: string): WaitingRequest => ({
  kind: 'permission',
  request: {
    id: 'per_1',
    sessionID: 'ses_1',
    permission,
    patterns: [...patterns],
    always: [],
    ...(command !== undefined && { metadata: { command } }),
  },
});
const NO_RM: ApprovalRule = { pattern: 'rm *', approve: 'never' };
const RM_BY_MODEL: ApprovalRule = { pattern: 'rm -i *', approve: 'model' };
const STATUS_BY_MODEL: ApprovalRule = { permission: 'bash', pattern: 'git status*', approve: 'model' };
const bash = (...patterns: string[]): WaitingRequest => request('bash', patterns);
/** A command with its patterns, as opencode (1.18.33 and 1.18.10) lists it. */
const shell = (command: string, ...patterns: string[]): WaitingRequest => request('bash', patterns, command);
const question: WaitingRequest = { kind: 'question', request: { id: 'que_1', sessionID: 'ses_1', questions: [] } };

function approverFor(
  rules: readonly ApprovalRule[],
  waiting: WaitingRequest,
  { names = ['laptop'], approve = 'human' }: { readonly names?: readonly string[]; readonly approve?: Approver } = {},
): Approver {
  return approverOf({ approve, approvalRules: rules }, names, waiting);
}

describe('the approver of a request', () => {
  test('is named by the first rule that fits, else by the default', () => {
    const rules: ApprovalRule[] = [
      STATUS_BY_MODEL,
      { instance: 'build-*', approve: 'ask' },
      { permission: 'question', approve: 'model' },
    ];
    expect(approverFor(rules, bash('git status -s'))).toBe('model');
    expect(approverFor(rules, bash('rm -rf build'))).toBe('human');
    expect(approverFor(rules, bash('rm -rf build'), { names: ['build-1'] })).toBe('ask');
    expect(approverFor(rules, question)).toBe('model');
    expect(approverFor([], question)).toBe('human');
  });

  test('a command that was cut gets the strictest approver of all rules for its kind', () => {
    const rules: ApprovalRule[] = [
      { permission: 'bash', pattern: 'echo *', approve: 'model' },
      { permission: 'bash', pattern: 'rm *', approve: 'never' },
      { permission: 'edit', approve: 'human' },
    ];
    expect(approverFor(rules, shell('echo x', 'echo x'), { approve: 'ask' })).toBe('model');
    expect(approverFor(rules, shell(`echo x${CUT_MARK}`, `echo x${CUT_MARK}`), { approve: 'ask' })).toBe('never');
    expect(approverFor(rules.slice(0, 1), shell(`echo x${CUT_MARK}`, 'echo x'), { approve: 'ask' })).toBe('ask');
  });

  test('the examples in docs/permissions.md hold', () => {
    const rules: ApprovalRule[] = [STATUS_BY_MODEL, { instance: 'server-*', approve: 'human' }];
    const approverOn = (waiting: WaitingRequest, name: string): Approver =>
      approverFor(rules, waiting, { names: [name], approve: 'ask' });
    const statusAndRm = shell('git status && rm F', 'git status', 'rm F');
    expect(approverOn(shell('git status -s', 'git status -s'), 'laptop')).toBe('model');
    expect(approverOn(shell('git status', 'git status'), 'server-1')).toBe('model');
    expect(approverOn(statusAndRm, 'laptop')).toBe('ask');
    expect(approverOn(statusAndRm, 'server-1')).toBe('human');
    expect(approverOn(question, 'server-1')).toBe('human');
    expect(approverOn(request('edit', ['src/a.ts']), 'laptop')).toBe('ask');
  });

  test('the strictest approver of all pieces counts', () => {
    const rules: ApprovalRule[] = [
      { pattern: 'rm *', approve: 'never' },
      { pattern: 'curl *', approve: 'human' },
      { pattern: 'make*', approve: 'ask' },
      { pattern: '*', approve: 'model' },
    ];
    const approverOfPieces = (...patterns: string[]): Approver =>
      approverFor(rules, bash(...patterns), { approve: 'model' });
    expect(approverOfPieces('true', 'rm F')).toBe('never');
    expect(approverOfPieces('rm F', 'curl x', 'make', 'true')).toBe('never');
    expect(approverOfPieces('make', 'curl x', 'true')).toBe('human');
    expect(approverOfPieces('true', 'make')).toBe('ask');
    expect(approverOfPieces('true', 'false')).toBe('model');
  });

  test('an earlier exception holds for its own piece only', () => {
    const rules = [RM_BY_MODEL, NO_RM];
    expect(approverFor(rules, bash('rm -i F'))).toBe('model');
    expect(approverFor(rules, bash('rm -i F', 'rm F'))).toBe('never');
    expect(approverFor(rules, shell('rm -i F; rm -i G', 'rm -i F', 'rm -i G'))).toBe('model');
  });

  test('a rule with a pattern fits no request without a command or path', () => {
    const rules: ApprovalRule[] = [{ pattern: '*', approve: 'model' }];
    expect(approverFor(rules, bash('git log'))).toBe('model');
    expect(approverFor(rules, bash())).toBe('human');
    expect(approverFor(rules, question)).toBe('human');
    expect(approverFor(rules, bash(''))).toBe('human');
    expect(approverFor(rules, shell('', ' '))).toBe('human');
    expect(approverFor([{ approve: 'model' }], bash())).toBe('model');
  });

  test('a rule for an instance fits each of its names, ignoring case', () => {
    const names = ['prod@one:4096', 'prod@one', 'prod'];
    for (const instance of ['prod', 'PROD@ONE', 'prod@one:4096', 'prod@*'])
      expect(approverFor([{ instance, approve: 'never' }], bash('ls'), { names })).toBe('never');
    for (const instance of ['pro', 'prod@two', 'one'])
      expect(approverFor([{ instance, approve: 'never' }], bash('ls'), { names })).toBe('human');
  });
});

describe('a shell command', () => {
  test.each([
    ['git status', ['git status']],
    ['git   status -s', ['git   status -s']],
    ['git status; git status', ['git status']],
    ['git status && git status -s', ['git status', 'git status -s']],
    ['git status -s || git status\n\ngit status &', ['git status -s', 'git status']],
    ['(git status | git status -s)', ['git status', 'git status -s']],
    ['{ git status; }', ['git status']],
    ['git status "; rm F"', ['git status "; rm F"']],
    ['git status \\\n  -s', ['git status \\\n  -s']],
    ['git status <<E >"${D}/x" 2>&1\nx; y\nE', ['git status <<E >"${D}/x" 2>&1\nx; y\nE']],
    ['git status <<E | git status -s\nx\nE', ['git status <<E | git status -s\nx\nE', 'git status -s']],
  ])('%j is covered by rules for all its listed commands', (command, patterns) => {
    expect(approverFor([STATUS_BY_MODEL], shell(command, ...patterns))).toBe('model');
  });

  test.each([
    ['> F; git status', ['git status']],
    ['git status && > F', ['git status']],
    ['{ git status; } > F', ['git status']],
    ['(git status) > F', ['git status']],
    ['git status # rm', ['git status']],
    ['git status <<E; rm F\nx\nE', ['git status']],
    ['cd x && git status', ['git status']],
    ['export A=1; git status', ['git status']],
    ['[[ -f a ]] && git status', ['git status']],
    ['if git status; then git status; fi', ['git status']],
    ['! git status', ['git status']],
    ['x=$(git status)', ['git status']],
    ['x=`git status`', ['git status']],
    ['`git status`', ['git status']],
    ['git status "', ['git status']],
    ['git() { git status; }; git status', ['git status']],
    ['FOO=1 git status', ['FOO=1 git status']],
    ['> F git status', ['> F git status']],
    ['git status << "E" ; rm F\nx\nE', ['git status << "E" ; rm F\nx\nE']],
    ['git status <<E & rm F\nx\nE', ['git status <<E & rm F\nx\nE']],
    // An entry that is not in the command.
    ['git  status; > F', ['git status']],
    ['rm F', ['git status']],
    ['rm F', []],
  ])('%j is not covered by a rule for `git status`', (command, patterns) => {
    expect(approverFor([STATUS_BY_MODEL], shell(command, ...patterns))).toBe('human');
  });

  test.each([
    ['true; rm F', ['true', 'rm F']],
    ['echo $(rm F)', ['echo $(rm F)', 'rm F']],
    ['true; rm  -rf\tF', ['true', 'rm  -rf\tF']],
    ['rm \\\nF', ['rm \\\nF']],
    ['RM F', ['RM F']],
    ['FOO=1 rm F', ['FOO=1 rm F']],
    ['A="x y" B[0]+=$(x y) rm F', ['A="x y" B[0]+=$(x y) rm F', 'x y']],
    ['2>/dev/null rm F', ['2>/dev/null rm F']],
    ['> G rm F', ['> G rm F']],
    ['A[$i]=1 rm F', ['A[$i]=1 rm F']],
    ['A[i + 1]=1 rm F', ['A[i + 1]=1 rm F']],
    ['{fd}>G rm F', ['fd}>G rm F']],
    ['git status <<E; if true; then rm F; fi\nx\nE', ['git status', 'then rm F', 'fi', 'x', 'E']],
    ['git status <<E; ! rm F\nx\nE', ['git status']],
    ['while rm F', []],
    // Listed as a part of the previous command.
    ['git status << "E" ; rm F\nx\nE', ['git status << "E" ; rm F\nx\nE']],
    ['git status <<E & rm F\nx\nE', ['git status <<E & rm F\nx\nE']],
    ['git status "\n" <<E 2>&1; rm F\nx\nE', ['git status "\n" <<E 2>&1; rm F\nx\nE']],
    // A listed command begins an unlisted one.
    ['rm; cat <<E; rm -rf F\nx\nE', ['rm', 'cat']],
    ['time -p rm F', ['time -p rm F']],
    // Not listed by opencode, and run by the shell.
    ['git status <<E; rm F\nx\nE', ['git status']],
    // No listed entry is in the command.
    ['x=$(rm F)', []],
    ['x=`rm F`', ['true']],
    ['true &rm F', ['true']],
  ])('%j is never settled if a rule forbids `rm *`', (command, patterns) => {
    expect(approverFor([NO_RM, { approve: 'model' }], shell(command, ...patterns), { approve: 'model' })).toBe('never');
  });

  test('a command that only begins or ends like a listed one is a piece of its own', () => {
    const rules: ApprovalRule[] = [{ pattern: 'ls', approve: 'model' }];
    for (const command of ['lsblk; ls', 'ls; als', "ls; '; ls'", 'ls; ls#'])
      expect(approverFor(rules, shell(command, 'ls'))).toBe('human');
    // A listed `c` does not cover the beginning of `cd`, which opencode does not list.
    const noCd: ApprovalRule[] = [{ pattern: 'cd *', approve: 'never' }];
    expect(approverFor(noCd, shell('c; cd /etc', 'c'), { approve: 'model' })).toBe('never');
  });

  test('a command that mentions `rm` as an argument is no `rm`', () => {
    for (const command of ["echo 'x; rm F'", 'git rm F', 'echo rm F', 'rmdir F', 'git commit -m "fix; rm x"'])
      expect(approverFor([NO_RM], shell(command, command), { approve: 'model' })).toBe('model');
  });

  test('the parts that opencode does not list need a rule that fits, too', () => {
    const rules: ApprovalRule[] = [STATUS_BY_MODEL, { pattern: 'cd *', approve: 'model' }];
    expect(approverFor(rules, shell('cd web && git status', 'git status'))).toBe('model');
    expect(approverFor(rules, shell('cd web && git status && > F', 'git status'))).toBe('human');
    expect(
      approverFor([STATUS_BY_MODEL, { instance: 'laptop', approve: 'model' }], shell('> F; git status', 'git status')),
    ).toBe('model');
  });

  test('a rule for a later word does not loosen a command with an assignment', () => {
    const rules = [RM_BY_MODEL, NO_RM];
    expect(approverFor(rules, bash('FOO=1 rm F rm -i G'), { approve: 'model' })).toBe('never');
  });

  test('a pattern in another case forbids, but does not allow', () => {
    const rules: ApprovalRule[] = [
      { pattern: 'git branch -d *', approve: 'model' },
      { pattern: 'git branch -D *', approve: 'never' },
    ];
    expect(approverFor(rules, bash('git branch -d x'))).toBe('model');
    expect(approverFor(rules, bash('git branch -D x'))).toBe('never');
    expect(approverFor(rules.slice(0, 1), bash('git branch -D x'))).toBe('human');
    expect(approverFor(rules.slice(1), bash('git branch -d x'), { approve: 'model' })).toBe('never');
  });

  // Comparing every listed command at every position would take more than a minute.
  test('a hostile list of commands cannot block the event loop', { timeout: 20_000 }, () => {
    const command = 'a;'.repeat(20_000);
    const listed = Array.from({ length: 100 }, (_, index) => `${'a;'.repeat(10_000 - index)}b`);
    expect(approverFor([{ pattern: 'a', approve: 'model' }], shell(command, ...listed))).toBe('human');
  });

  test("an exception with an assignment before the command's name holds", () => {
    const rules: ApprovalRule[] = [
      { pattern: 'CI=1 npm test', approve: 'model' },
      { pattern: '*', approve: 'never' },
    ];
    expect(approverFor(rules, bash('CI=1 npm test'))).toBe('model');
    expect(approverFor(rules, bash('CI=2 npm test'))).toBe('never');
  });

  test('a request with more commands than are compared is covered if a rule fits each', () => {
    const commands = Array.from({ length: 20_000 }, (_, index) => `echo ${index}`);
    const command = commands.join('\n');
    expect(approverFor([{ pattern: 'echo *', approve: 'model' }], shell(command, ...commands))).toBe('model');
    expect(approverFor([{ pattern: 'echo *', approve: 'model' }], shell(`${command}\n> F`, ...commands))).toBe('human');
  });
});

test('a request for an external directory is compared by its directories, not by its command', () => {
  const rules: ApprovalRule[] = [{ permission: 'external_directory', pattern: '/tmp/*', approve: 'model' }];
  expect(approverFor(rules, request('external_directory', ['/tmp/a/*'], 'rm -rf /tmp/a/b'))).toBe('model');
  expect(approverFor(rules, request('external_directory', ['/tmp/a/*', '/etc/*'], 'cp /etc/a /tmp/a'))).toBe('human');
});

test('a path is compared with its spaces unchanged', () => {
  const rules: ApprovalRule[] = [
    { permission: 'edit', pattern: 'docs/a  b.md', approve: 'never' },
    { permission: 'edit', pattern: 'docs/*', approve: 'model' },
  ];
  expect(approverFor(rules, request('edit', ['docs/a  b.md']))).toBe('never');
  expect(approverFor(rules, request('edit', ['docs/c.md']))).toBe('model');
  expect(approverFor(rules, request('edit', ['docs/c.md', 'src/a.ts']))).toBe('human');
  const exact: ApprovalRule[] = [{ permission: 'edit', pattern: 'docs/a b.md', approve: 'model' }];
  expect(approverFor(exact, request('edit', ['docs/a b.md']))).toBe('model');
  expect(approverFor(exact, request('edit', ['docs/a  b.md']))).toBe('human');
});

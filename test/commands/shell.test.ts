import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { ABORT } from '../../src/commands/abort.ts';
import { ATTACH } from '../../src/commands/attach.ts';
import { DASHBOARD } from '../../src/commands/dashboard.ts';
import { DOCTOR_ARGUMENTS } from '../../src/commands/doctor.ts';
import { LIST } from '../../src/commands/list.ts';
import { OPEN } from '../../src/commands/open.ts';
import { READ } from '../../src/commands/read.ts';
import { run as runCommand } from '../../src/commands/run.ts';
import { RESPOND } from '../../src/commands/respond.ts';
import { SEND } from '../../src/commands/send.ts';
import { SESSIONS } from '../../src/commands/sessions.ts';
import { WAIT } from '../../src/commands/wait.ts';
import { HELP_TOPICS, helpText } from '../../src/commands/terminal/help.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { OPENCODE_MCP, runShell, shellEnv } from '../rig/programs/shell-command.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/programs/tmux.ts';
import { within } from '../rig/wait.ts';
import { runInProcess } from './in-process.ts';

let temp: TempDir;
let registry: Registry;
let desk: FakeOpencode;
let laptop: FakeOpencode;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  temp = tempDir('opencode-mcp-commands');
  registry = await openRegistry(join(temp.path, 'registry'));
  env = shellEnv(temp.path, registry.path);
  desk = await startFakeOpencode({ directory: '/home/ada/desk', reply: (text) => `so ${text}` });
  laptop = await startFakeOpencode({ directory: '/home/ada/projects/a-rather-long-directory/of/the/laptop' });
  desk.addSession({ title: 'On the desk' });
  await registry.add({ name: 'desk', port: desk.port, cwd: desk.directory, hostname: 'desk-host' });
  await registry.add({ name: 'laptop-web', port: laptop.port, cwd: laptop.directory, hostname: 'laptop-host' });
  const { id } = laptop.addSession({ title: 'Waits for an answer to its permission request' });
  laptop.state.statuses.set(id, { type: 'busy' });
  laptop.addPermission({ sessionID: id });
});
afterAll(async () => {
  await Promise.all([desk.close(), laptop.close()]);
  await temp.close();
});

async function run(args: readonly string[], extra: Readonly<Record<string, string>> = {}) {
  const started = runShell(args, { ...env, ...extra });
  const code = await within(started.ended, 'the command to end');
  return { code, stdout: started.stdout(), stderr: started.stderr() };
}

describe('help', () => {
  test('without a topic fits one screen and has every command and exit code', () => {
    const text = helpText() ?? '';
    const lines = text.trimEnd().split('\n');
    expect(lines.length).toBeLessThanOrEqual(24);
    for (const line of lines) expect(Array.from(line).length, line).toBeLessThanOrEqual(80);
    for (const name of [...HELP_TOPICS, 'init']) {
      if (name !== 'serve') expect(text).toContain(name);
    }
    for (const code of ['0 done', '1 failed', '2 ', '3 it waits', '4 nothing was sent', '124 it still runs'])
      expect(text).toContain(code);
  });

  test.each(HELP_TOPICS.filter((topic) => topic !== 'settings'))('of %s has usage and examples', (topic) => {
    const text = helpText(topic);
    expect(text).toMatch(new RegExp(`^Usage: opencode-mcp ${topic}\\b`));
    expect(text).toMatch(new RegExp(`^Examples:\\n(?: {2}.*opencode-mcp .*\\n)+$`, 'm'));
  });

  test('is printed for help COMMAND and for COMMAND --help', async () => {
    const expected = { code: 0, stdout: helpText('send'), stderr: '' };
    expect(await run(['help', 'send'])).toEqual(expected);
    expect(await run(['send', '--help'])).toEqual(expected);
  });

  test('has every flag that the command takes', () => {
    const commands = { list: LIST, send: SEND, read: READ, wait: WAIT, respond: RESPOND, abort: ABORT };
    const more = { sessions: SESSIONS, attach: ATTACH, open: OPEN, dashboard: DASHBOARD };
    const taken = Object.entries({ ...commands, ...more }).map(([name, command]) => [name, command.arguments] as const);
    for (const [name, { flags }] of [...taken, ['doctor', DOCTOR_ARGUMENTS] as const])
      for (const flag of Object.keys(flags)) expect(helpText(name), name).toContain(`--${flag}`);
  });
});

describe('messages and exit codes', () => {
  test.each<[string, string[], RegExp]>([
    ['send without anything', ['send'], /NAME and MESSAGE are missing: opencode-mcp send NAME MESSAGE…/],
    ['send with an empty standard input', ['send', 'desk'], /standard input has no message/],
    [
      'send with two choices for a busy session',
      ['send', 'desk', 'x', '--queue', '--interrupt'],
      /expected --queue or --interrupt/,
    ],
    ['read without a name', ['read'], /NAME is missing: opencode-mcp read NAME \[SESSION\]/],
    ['abort with too many arguments', ['abort', 'a', 'b', 'c'], /unexpected argument "c"/],
    ['doctor with an empty name', ['doctor', ''], /doctor: NAME is empty/],
    [
      'respond with an unsupported reply',
      ['respond', 'desk', '--reply', 'always'],
      /expected once or reject, got "always"/,
    ],
    ['a timeout that is not a number', ['wait', '--timeout', 'soon'], /--timeout: expected a whole number from 1 to/],
    ['an unknown flag', ['list', '--wach'], /--wach: unknown flag.*did you mean --watch\?/],
    ['a switch with a value', ['send', 'desk', 'x', '--interrupt=false'], /--interrupt: expected no value/],
    ['a flag in a message', ['send', 'desk', 'run', '-v'], /-v: unknown flag/],
    [
      'help for an unknown command',
      ['help', 'sendd'],
      /unknown command "sendd", see opencode-mcp help; did you mean send\?/,
    ],
    ['a change that read-only forbids', ['send', 'desk', 'x', '--read-only'], /--no-read-only overrides it/],
  ])('%s exits with 2', async (_, args, reason) => {
    const { code, stdout, stderr } = await runInProcess(args, env, runCommand);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(reason);
    expect(desk.state.prompts).toEqual([]);
  });

  test('an unknown name exits with 1 and advises a shell command', async () => {
    for (const command of [
      ['send', 'nobody', 'x'],
      ['read', 'nobody'],
    ]) {
      const { code, stdout, stderr } = await run(command);
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toContain('No instance fits "nobody". Known instances: desk (desk-host, idle)');
      expect(stderr).toContain('run opencode-mcp list for details');
      expect(stderr).not.toContain('_instances');
    }
  });

  test('an unreachable instance exits with 4 for send, and with 1 for other commands', async () => {
    await registry.add({ name: 'gone', port: await freePort(), cwd: '/gone' });
    const { code, stderr } = await run(['send', 'gone', 'x']);
    expect([code, stderr]).toEqual([4, expect.stringContaining('ECONNREFUSED')]);
    expect((await run(['read', 'gone'])).code).toBe(1);
    await registry.remove('gone');
  });

  test('send accepts a part of a name, prints the answer, and records the call', async () => {
    expect(await run(['send', 'des', '--', '--it', 'goes'])).toMatchObject({ code: 0, stdout: 'so --it goes\n' });
    const record = await readFile(join(temp.path, '.local/state/opencode-mcp/record.jsonl'), 'utf8');
    expect(JSON.parse(record.trim().split('\n').at(-1) ?? '')).toMatchObject({
      client: 'shell',
      tool: 'send',
      instance: 'desk',
      outcome: 'completed',
    });
  });
});

describe('list', () => {
  test('in a pipe has all columns in full width, and no colours in any environment', async () => {
    const { code, stdout, stderr } = await run(['ls'], { FORCE_COLOR: '3' });
    expect([code, stderr]).toEqual([0, '']);
    const [head, ...rows] = stdout.trimEnd().split('\n');
    expect(head).toMatch(/^NAME +STATE +WHAT +DIRECTORY +HOST +VIA +OPENCODE +SOURCE$/);
    expect(rows[0]).toMatch(/^laptop-web +waiting +permission: «bash "ls"» +\/home\/ada\/projects\//);
    expect(rows[1]).toMatch(/^desk +idle +".*", \d+ s ago +\/home\/ada\/desk +desk-host /);
    expect(stdout).not.toContain('\u001b');
  });

  test('lists names with a given part, and prints JSON with --json', async () => {
    expect((await run(['list', 'laptop'])).stdout).not.toMatch(/^desk/m);
    const { stdout } = await run(['list', 'laptop', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ total: 1, instances: [{ name: 'laptop-web', state: 'waiting' }] });
  });

  test('Tab completes the names of an earlier list, even if the instances are no longer registered', async () => {
    await run(['list', 'desk']);
    const elsewhere = { RELAY_REGISTRY_DIR: join(temp.path, 'none') };
    const { stdout } = await run(['__complete', 'fish', 'opencode-mcp', 'read', '--limit', '3', ''], elsewhere);
    expect(stdout.split('\n')).toEqual(expect.arrayContaining(['desk', 'laptop-web']));
    const help = await run(['__complete', 'zsh', 'opencode-mcp', 'read', '--help', '-']);
    expect(help.stdout).toBe('--limit\n--before\n--message\n--offset\n--json\n--help\n');
  });

  test('with --watch --json prints a line for each change, until it is interrupted', async () => {
    const watching = runShell(['list', 'desk', '--watch', '--json'], env);
    await watching.shows(/"state":"idle".*\n/);
    const { id } = desk.addSession({ title: 'Another' });
    desk.state.statuses.set(id, { type: 'busy' });
    await watching.shows(/"state":"busy".*\n$/);
    desk.state.statuses.delete(id);
    watching.kill('SIGINT');
    expect(await within(watching.ended, 'the command to end')).toBe(0);
    for (const line of watching.stdout().trim().split('\n')) expect(JSON.parse(line)).toMatchObject({ total: 1 });
  });
});

describe('in a terminal', () => {
  async function openTerminal(columns: number, extra: Readonly<Record<string, string>> = {}): Promise<TmuxTerminal> {
    const opened = await openTmux({ ...env, ...extra }, temp.path);
    await opened.resize(columns, 24);
    await opened.type(`om() { ${OPENCODE_MCP} "$@"; echo "code $?"; }; clear`, 'Enter');
    return opened;
  }

  test('list fits its columns into the terminal', async (context) => {
    needTmux(context);
    await using screen = await openTerminal(60);
    await screen.type('om list', 'Enter');
    const shown = await screen.shows(/^code 0$/m);
    const head = /^NAME +STATE +WHAT$/m;
    expect(shown).toMatch(head);
    const rows = shown.split('\n').filter((line) => /^(?:laptop-web|desk) +(?:waiting|idle) /.test(line));
    expect(rows).toHaveLength(2);
    // A longer line would wrap.
    expect(shown.slice(shown.search(head)).trimEnd().split('\n')).toHaveLength(5);
  });

  test('list has colours unless NO_COLOR or TERM forbids them', async (context) => {
    needTmux(context);
    await using screen = await openTerminal(100);
    const variants = { coloured: '', plain: 'NO_COLOR=1', dumb: 'TERM=dumb' };
    // The terminal of `script` has no width.
    const list = `script -qc 'stty cols 0 rows 0; ${OPENCODE_MCP} list' /dev/null`;
    const commands = Object.entries(variants).map(([name, variable]) => `${variable} ${list} > ${name}`);
    await screen.type(`${commands.join('; ')}; echo finis\\hed`, 'Enter');
    await screen.shows(/^finished$/m);
    for (const name of Object.keys(variants)) {
      const drawn = await readFile(join(temp.path, name), 'utf8');
      expect(drawn).toContain('«bash "ls"»');
      expect(drawn.includes('\u001b[33mwaiting\u001b[39m'), name).toBe(name === 'coloured');
      expect(drawn.includes('\u001b'), name).toBe(name === 'coloured');
    }
  });

  test('--watch redraws in place, follows the width, and restores the cursor', async (context) => {
    needTmux(context);
    await using screen = await openTerminal(200);
    await screen.type('om list --watch', 'Enter');
    await screen.shows(/^2 instances: 1 waiting, 1 idle \(Ctrl-C ends\)\nNAME .* SOURCE$/m);
    const { id } = desk.addSession({ title: 'Watched' });
    desk.state.statuses.set(id, { type: 'busy' });
    await screen.shows(/^2 instances: 1 waiting, 1 busy \(Ctrl-C ends\)\n[^]*"Watched"/);
    desk.state.statuses.delete(id);
    await screen.resize(60, 24);
    await screen.shows(/^2 instances: 1 waiting, 1 idle \(Ctrl-C ends\)\nNAME +STATE +WHAT\n/);
    await screen.type('', 'C-c');
    // The terminal may have echoed ^C first.
    await screen.shows(/code 0\n\$/);
  });

  test('the program without a command shows the help', async (context) => {
    needTmux(context);
    await using screen = await openTerminal(80);
    await screen.type('om', 'Enter');
    const shown = await screen.shows(/^code 0$/m);
    expect(shown).toContain('opencode-mcp finds every OpenCode instance you run');
    expect(shown).toContain('send NAME MESSAGE…');
    await screen.type('clear; om --tolsets core', 'Enter');
    await screen.shows(/did you mean --toolsets\?\ncode 2/);
    await screen.type('clear; om send desk', 'Enter');
    await screen.shows(/MESSAGE is missing.*\n*.*\ncode 2/);
  });
});

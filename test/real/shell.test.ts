import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { toolReply } from '../rig/model-script.ts';
import type { Opencode } from '../rig/opencode.ts';
import { OPENCODE_MCP, runShell, shellEnv, type ShellRun } from '../rig/shell-command.ts';
import { type TempDir, tempDir } from '../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/tmux.ts';
import { until, within } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

let stage: Stage;
let opencode: Opencode;
let temp: TempDir;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  stage = await openStage();
  temp = tempDir('opencode-mcp-shell');
  opencode = await stage.opencode();
  await stage.register('worker', opencode);
  env = shellEnv(temp.path, stage.registry.path);
});
afterAll(async () => {
  await stage.close();
  await temp.close();
});
afterEach(async () => {
  for (const { id } of await opencode.json<{ id: string }[]>('GET', '/session'))
    await opencode.request('POST', `/session/${id}/abort`);
  await until('everything to be idle', async () => !(await isBusy()));
});

async function isBusy(): Promise<boolean> {
  return Object.keys(await opencode.json<object>('GET', '/session/status')).length > 0;
}

async function done(run: ShellRun): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const code = await within(run.ended, 'its end');
  return { code, stdout: run.stdout(), stderr: run.stderr() };
}

const shell = (...args: string[]): ReturnType<typeof done> => done(runShell(args, env));

describe('on pipes', () => {
  test('send streams the answer to stdout, and prints the outcome to stderr', async () => {
    const run = runShell(['send', 'work', 'gate-mid', 'streams:', 'first |and last'], env);
    await run.shows(/^first $/);
    stage.model.release('streams');
    const { code, stdout, stderr } = await done(run);
    expect([code, stdout]).toEqual([0, 'first and last\n']);
    expect(stderr).toMatch(/^opencode-mcp send: worker: completed, in .+ \(ses_\w{8}\)\n$/);
  });

  test('the message may come from stdin, and the result as JSON', async () => {
    const { code, stdout } = await done(runShell(['send', 'worker', '-', '--json'], env, 'echo: two\nlines'));
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ instance: 'worker', outcome: 'completed', text: 'two\nlines' });
    const read = await shell('read', 'worker', '--limit', '1');
    expect(read.stdout).toMatch(/^│ two\n│ lines$/m);
    const sessions = await shell('sessions', 'worker');
    expect(sessions.stdout).toMatch(/^SESSION +STATE +AGE +TITLE/);
    expect(sessions.stdout).toMatch(/^ses_\w+ +idle /m);
  });

  test('at a permission send ends with 3, and respond settles it and goes on', async () => {
    const sent = await shell('send', 'worker', 'bash: echo permitted');
    expect(sent).toMatchObject({ code: 3, stdout: '' });
    expect(sent.stderr).toMatch(/It waits for permission: «bash "echo permitted"»/);
    expect(sent.stderr).toContain('Settle it: opencode-mcp respond worker\n');
    expect((await shell('wait')).code).toBe(3);
    expect((await shell('list')).stdout).toMatch(/^worker +waiting +permission: «bash "echo permitted"»/m);
    expect(await shell('respond', 'worker')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('no terminal to ask in; give --reply once') as string,
    });
    const human = await done(
      runShell(['respond', 'worker', '--reply', 'once'], { ...env, OPENCODE_MCP_APPROVE: 'human' }),
    );
    expect(human).toMatchObject({ code: 1, stderr: expect.stringContaining('approve: human') as string });
    const never = await done(
      runShell(['respond', 'worker', '--reply', 'once'], { ...env, OPENCODE_MCP_APPROVE: 'never' }),
    );
    expect(never).toMatchObject({ code: 1, stderr: expect.stringContaining('approve: never') as string });
    const settled = await shell('respond', 'worker', '--reply', 'once');
    expect(settled).toMatchObject({ code: 0, stdout: `${toolReply('bash', 'permitted')}\n` });
    expect(settled.stderr).toContain('allowed once: permission');
  });

  test('a question is answered with its label, a rejection may say what to do', async () => {
    expect((await shell('send', 'worker', 'ask: Which color?|Red|Blue')).code).toBe(3);
    const answered = await shell('respond', 'worker', '--answer', 'blue');
    expect(answered).toMatchObject({ code: 0, stdout: expect.stringContaining('Blue') as string });
    expect((await shell('send', 'worker', 'bash: echo no')).code).toBe(3);
    const told = await shell('respond', 'worker', '--reply', 'reject', '--message', 'use printf');
    expect(told).toMatchObject({ code: 0, stdout: expect.stringContaining('use printf') as string });
  });

  test('a busy session gets nothing, the time limit has an exit code, and abort stops it', async () => {
    expect(await shell('send', 'worker', 'hang', 'busy', '--no-wait')).toMatchObject({
      code: 124,
      stderr: expect.stringContaining('It goes on. Follow it: opencode-mcp wait worker.') as string,
    });
    const refused = await shell('send', 'worker', 'echo: never sent');
    expect(refused).toMatchObject({ code: 4, stdout: '' });
    expect(refused.stderr).toContain('nothing was sent');
    expect(refused.stderr).toContain('--queue (after what runs) or --interrupt (stops it first)');
    expect((await shell('wait', 'worker', '--timeout', '1')).code).toBe(124);
    expect(stage.model.requests.filter(({ text }) => text.includes('never sent'))).toEqual([]);
    expect(await shell('abort', 'worker')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^worker, session ses_\w+ ".*": aborted/) as string,
    });
    expect(await isBusy()).toBe(false);
  });

  test('an interrupt stops following, and the turn goes on', async () => {
    const run = runShell(['send', 'worker', 'gate-mid interrupted: begun |ended'], env);
    await run.shows(/^begun/);
    run.kill('SIGINT');
    const { code, stdout, stderr } = await done(run);
    expect([code, stdout]).toEqual([124, 'begun \n']);
    expect(stderr).toContain('It goes on');
    expect(await isBusy()).toBe(true);
    stage.model.release('interrupted');
    expect(await shell('wait', 'worker')).toMatchObject({ code: 0, stdout: 'begun ended\n' });
  });
});

describe('in a terminal', () => {
  async function terminal(columns = 100): Promise<TmuxTerminal> {
    const opened = await openTmux({ ...env, NO_COLOR: '1' }, temp.path);
    await opened.resize(columns, 40);
    await opened.type(`om() { ${OPENCODE_MCP} "$@"; echo "code $?"; }; clear`, 'Enter');
    return opened;
  }

  test.for([60, 200])('send asks for a permission with the exact command, at %d columns', async (columns, context) => {
    needTmux(context);
    await using screen = await terminal(columns);
    await screen.type(`om send worker 'bash: echo "asked $((40+2))"'`, 'Enter');
    const asked = await screen.shows(/number or word .*> $|number or word .*>$/m);
    expect(asked).toContain('asks for permission: bash');
    expect(asked).toContain('\necho "asked $((40+2))"\n');
    expect(asked).toMatch(/1 {2}once\n {2}2 {2}always\n {2}3 {2}reject/);
    await screen.type('on', 'Enter');
    const ended = await screen.shows(/code \d+/);
    expect(ended).toContain('bash returned: asked 42');
    expect(ended).toContain('code 0');
  });

  test('earlier typing does not answer the question, and Ctrl-D leaves it open', async (context) => {
    needTmux(context);
    await using screen = await terminal();
    const message = `plan: [["bash",{"command":"echo ahead"}]]`;
    await screen.type(`om send worker '${message}'`, 'Enter');
    // The terminal has the keys before the program reads.
    await screen.type('once', 'Enter');
    await screen.shows(/number or word .*>/);
    expect(await isBusy()).toBe(true);
    await screen.type('', 'C-d');
    expect(await screen.shows(/code \d+/)).toContain('code 3');
    await screen.type('clear; om respond worker', 'Enter');
    // Not the earlier question: typing would then come before this one.
    await screen.shows(/^(?![^]*code 3)[^]*number or word .*>/);
    await screen.type('3', 'Enter');
    await screen.shows(/your words, or Enter .*>/);
    await screen.type('not now', 'Enter');
    const ended = await screen.shows(/code \d+/);
    expect(ended).toContain('rejected permission');
    expect(ended).toContain('not now');
  });

  test('--reply still asks where only a person may settle; where the model may, the person is asked', async (context) => {
    needTmux(context);
    expect((await shell('send', 'worker', 'bash: echo human')).code).toBe(3);
    await using screen = await terminal();
    await screen.type('OPENCODE_MCP_APPROVE=human om respond worker --reply once', 'Enter');
    await screen.shows(/number or word .*>/);
    expect(await isBusy()).toBe(true);
    await screen.type('once', 'Enter');
    expect(await screen.shows(/code \d+/)).toContain('bash returned: human');
    await screen.type("clear; OPENCODE_MCP_APPROVE=model om send worker 'bash: echo model'", 'Enter');
    await screen.shows(/^echo model$[^]*number or word .*>/m);
    await screen.type('once', 'Enter');
    await screen.shows(/bash returned: model[^]*code 0/);
  });

  test('a question shows its options', async (context) => {
    needTmux(context);
    await using screen = await terminal();
    await screen.type(`om send worker 'ask: Which shape?|Round|Square'`, 'Enter');
    const asked = await screen.shows(/number or word .*>/);
    expect(asked).toContain('1. Which shape?');
    expect(asked).toMatch(/1 {2}Round\n {2}2 {2}Square/);
    await screen.type('2', 'Enter');
    const ended = await screen.shows(/code \d+/);
    expect([ended.includes('code 0'), ended.includes('Square')]).toEqual([true, true]);
  });

  test.for([
    ['s', ['Enter'], 124, true],
    ['', ['C-c'], 124, true],
    ['a', ['Enter'], 1, false],
  ] as const)('Ctrl-C asks; %j %j ends with %d', async ([text, keys, code, goesOn], context) => {
    needTmux(context);
    await using screen = await terminal();
    const gate = `terminal-${text}-${keys[0]}`;
    await screen.type(`om send worker 'gate-mid ${gate}: begun |ended'`, 'Enter');
    await screen.shows(/^begun/m);
    await screen.type('', 'C-c');
    expect(await screen.shows(/go on>/)).toContain('Stop following it (it goes on), or abort it?');
    await screen.type(text, ...keys);
    expect(await screen.shows(/code \d+/)).toContain(`code ${code}`);
    expect(await isBusy()).toBe(goesOn);
    stage.model.release(gate);
  });

  test('Enter after Ctrl-C continues, and no text of the answer is lost', async (context) => {
    needTmux(context);
    await using screen = await terminal();
    await screen.type(`om send worker 'gate-mid goes-on: begun |ended'`, 'Enter');
    await screen.shows(/^begun/m);
    await screen.type('', 'C-c');
    await screen.shows(/go on>/);
    await screen.type('', 'Enter');
    stage.model.release('goes-on');
    const ended = await screen.shows(/code \d+/);
    expect(ended).toMatch(/^ended$/m);
    expect(ended).toContain('code 0');
  });
});

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { toolReply } from '../rig/model/model-script.ts';
import { OPENCODE_MCP, runShell, shellEnv, type ShellRun } from '../rig/programs/shell-command.ts';
import { tempDir } from '../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/programs/tmux.ts';
import { until, within } from '../rig/wait.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { openStage, type Stage } from './stage.ts';

const temp = tempDir('opencode-mcp-shell');
let stage: Stage;
let opencode: Opencode;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  stage = await openStage();
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
const containing = (text: string): string => expect.stringContaining(text) as string;

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
    expect((await shell('read', 'worker', '--limit', '1')).stdout).toMatch(/^│ two\n│ lines$/m);
    expect((await shell('sessions', 'worker')).stdout).toMatch(/^SESSION +STATE +AGE +TITLE .*\nses_\w+ +idle /);
  });

  test('send ends with code 3 at a permission or a question; respond answers it and follows the turn', async () => {
    const sent = await shell('send', 'worker', 'bash: echo permitted');
    expect(sent).toMatchObject({ code: 3, stdout: '' });
    expect(sent.stderr).toMatch(/It waits for permission: «bash "echo permitted"»/);
    expect(sent.stderr).toContain('Settle it: opencode-mcp respond worker\n');
    expect((await shell('wait')).code).toBe(3);
    expect((await shell('list')).stdout).toMatch(/^worker +waiting +permission: «bash "echo permitted"»/m);
    expect(await shell('respond', 'worker')).toMatchObject({
      code: 2,
      stderr: containing('no terminal to ask in; give --reply once'),
    });
    expect(await shell('respond', 'worker', '--reply', 'once')).toMatchObject({
      code: 0,
      stdout: `${toolReply('bash', 'permitted')}\n`,
      stderr: containing('allowed once: permission'),
    });
    for (const [message, args, answer] of [
      ['ask: Which color?|Red|Blue', ['--answer', 'blue'], 'Blue'],
      ['bash: echo no', ['--reply', 'reject', '--message', 'use printf'], 'use printf'],
    ] as const) {
      expect((await shell('send', 'worker', message)).code).toBe(3);
      expect(await shell('respond', 'worker', ...args)).toMatchObject({ code: 0, stdout: containing(answer) });
    }
  });

  test('a busy session gets no message, the time limit has an exit code, and abort stops the session', async () => {
    expect(await shell('send', 'worker', 'hang', 'busy', '--no-wait')).toMatchObject({
      code: 124,
      stderr: containing('It goes on. Follow it: opencode-mcp wait worker.'),
    });
    const refused = await shell('send', 'worker', 'echo: never sent');
    expect(refused).toMatchObject({ code: 4, stdout: '', stderr: containing('nothing was sent') });
    expect(refused.stderr).toContain('--queue (after what runs) or --interrupt (stops it first)');
    expect((await shell('wait', 'worker', '--timeout', '1')).code).toBe(124);
    expect(stage.model.turns('echo: never sent')).toBe(0);
    expect(await shell('abort', 'worker')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^worker, session ses_\w+ ".*": aborted/) as string,
    });
    expect(await isBusy()).toBe(false);
  });

  test('an interrupt stops following, and the turn continues', async () => {
    const run = runShell(['send', 'worker', 'gate-mid interrupted: begun |ended'], env);
    await run.shows(/^begun/);
    run.kill('SIGINT');
    expect(await done(run)).toEqual({ code: 124, stdout: 'begun \n', stderr: containing('It goes on') });
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

  test('send asks for a permission with the exact command, and for an answer with the options', async (context) => {
    needTmux(context);
    await using screen = await terminal(60);
    await screen.type(`om send worker 'bash: echo "asked $((40+2))"'`, 'Enter');
    const permission = await screen.shows(/number or word .*> ?$/m);
    expect(permission).toContain('asks for permission: bash');
    expect(permission).toContain('\necho "asked $((40+2))"\n');
    expect(permission).toMatch(/1 {2}once\n {2}2 {2}always\n {2}3 {2}reject/);
    await screen.type('on', 'Enter');
    await screen.shows(/bash returned: asked 42[^]*code 0/);
    await screen.type(`clear; om send worker 'ask: Which shape?|Round|Square'`, 'Enter');
    expect(await screen.shows(/number or word .*>/)).toMatch(/1\. Which shape\?[^]*1 {2}Round\n {2}2 {2}Square/);
    await screen.type('2', 'Enter');
    expect(await screen.shows(/code \d+/)).toMatch(/Square[^]*code 0/);
  });

  test('earlier typing does not answer the question, and Ctrl-D leaves it open', async (context) => {
    needTmux(context);
    await using screen = await terminal();
    await screen.type(`om send worker 'plan: [["bash",{"command":"echo ahead"}]]'`, 'Enter');
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
    expect(await screen.shows(/code \d+/)).toMatch(/rejected permission[^]*not now|not now[^]*rejected permission/);
  });

  test('--reply asks too if only a person may answer; send asks a person even if the model may answer', async (context) => {
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

  test('Ctrl-C asks: Enter continues, s or a second Ctrl-C stops following, and a aborts', async (context) => {
    needTmux(context);
    await using screen = await terminal();
    for (const [text, key, code, goesOn] of [
      ['', 'Enter', 0, false],
      ['s', 'Enter', 124, true],
      ['', 'C-c', 124, true],
      ['a', 'Enter', 1, false],
    ] as const) {
      const gate = `terminal-${text}${key}`;
      await screen.type(`clear; om send worker --interrupt 'gate-mid ${gate}: begun |ended'`, 'Enter');
      await screen.shows(/^(?![^]*code \d)(?:[^]*\n)?begun/);
      await screen.type('', 'C-c');
      expect(await screen.shows(/go on>/)).toContain('Stop following it (it goes on), or abort it?');
      await screen.type(text, key);
      if (code === 0) stage.model.release(gate);
      const ended = await screen.shows(/code \d+/);
      expect(ended).toContain(`code ${code}`);
      // No text of the answer is lost.
      if (code === 0) expect(ended).toMatch(/^ended$/m);
      expect(await isBusy()).toBe(goesOn);
      stage.model.release(gate);
    }
  });
});

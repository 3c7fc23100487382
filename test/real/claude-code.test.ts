import { mkdir, readFile, readlink, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type ClaudeModel, type ClaudeReply, type ClaudeTurn, startClaudeModel } from '../rig/client-models.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { expectedReply, toolReply } from '../rig/model-script.ts';
import { inside, NamespaceSet } from '../rig/namespaces.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import type { Opencode } from '../rig/opencode.ts';
import { type ForwardedPort, forwardInto } from '../rig/forwarded-port.ts';
import { isMissing } from '../rig/opencode-binaries.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/tmux.ts';
import { until } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const component = (path: string): string =>
  fileURLToPath(new URL(`../components/node_modules/${path}`, import.meta.url));
const CLAUDE = component('@anthropic-ai/claude-code-linux-x64/claude');
const SEND = 'mcp__opencode__send';

let temp: TempDir;
let stage: Stage;
let opencode: Opencode;
let model: ClaudeModel;
let namespaces: NamespaceSet;
let ports: readonly ForwardedPort[];
let terminal: TmuxTerminal;
let env: Readonly<Record<string, string>>;

/** `send it: X` makes the model send X; whatever else comes it repeats. */
function reply({ newest, isResult, tools }: ClaudeTurn): ClaudeReply {
  const message = /send it: (.+)/.exec(newest)?.[1];
  if (message !== undefined && !isResult && tools.includes(SEND))
    return { tool: SEND, input: { instance: 'worker', message } };
  return `heard ${newest.length} characters`;
}

describe.skipIf(isMissing(CLAUDE) || process.getuid?.() !== 0)('Claude Code in a terminal', () => {
  beforeAll(async () => {
    temp = tempDir('claude-code');
    stage = await openStage();
    opencode = await stage.opencode();
    await stage.register('worker', opencode);
    model = await startClaudeModel(reply);
    namespaces = await NamespaceSet.open('claude');
    const namespace = await namespaces.add('home');
    ports = await Promise.all([model.port, opencode.port].map((port) => forwardInto(namespace, port, port)));
    const directory = join(temp.path, 'project');
    await mkdir(directory);
    const server = {
      type: 'stdio',
      command: process.execPath,
      args: [SERVER_SCRIPT, '--registry-dir', stage.registry.path, '--health-timeout-ms', '15000'],
      env: NO_MULTICAST,
    };
    const key = 'sk-ant-scripted-key-of-the-tests';
    await writeFile(
      join(temp.path, '.claude.json'),
      JSON.stringify({
        hasCompletedOnboarding: true,
        theme: 'dark',
        customApiKeyResponses: { approved: [key.slice(-20)], rejected: [] },
        mcpServers: { opencode: server },
        projects: { [directory]: { hasTrustDialogAccepted: true, hasCompletedProjectOnboarding: true } },
      }),
    );
    env = {
      PATH: process.env['PATH'] ?? '',
      HOME: temp.path,
      TMPDIR: temp.tmp,
      TERM: 'xterm-256color',
      ANTHROPIC_BASE_URL: model.url,
      ANTHROPIC_API_KEY: key,
      ENABLE_TOOL_SEARCH: 'false',
      DISABLE_AUTOUPDATER: '1',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    };
    terminal = await openTmux(env, directory, inside(namespace));
    await terminal.resize(120, 50);
  });
  afterAll(async () => {
    await terminal.close();
    await endProcessesIn(temp.tmp);
    for (const port of ports) port.close();
    await namespaces.close();
    await model[Symbol.asyncDispose]();
    await stage.close();
    await temp.close();
  });

  const say = async (text: string): Promise<void> => {
    await terminal.type(text);
    await terminal.shows(new RegExp(`❯\\s${text.replace(/[?|]/g, '\\$&')}`));
    await terminal.type('', 'Enter');
  };
  /** A key is lost where it comes while the form is drawn. */
  const press = async (key: string, isDone: (screen: string) => boolean): Promise<void> => {
    for (let tries = 0; tries < 10; tries += 1) {
      await terminal.type('', key);
      const look = async (): Promise<boolean> => isDone(await terminal.screen());
      if (await until(`what ${key} does`, look, 4_000).catch(() => false)) return;
    }
    throw new Error(`${key} does nothing:\n${await terminal.screen()}`);
  };
  const start = async (...more: readonly string[]): Promise<void> => {
    await terminal.type(
      ['clear;', CLAUDE, '--permission-mode', 'default', '--allowedTools', SEND, ...more].join(' '),
      'Enter',
    );
    await terminal.shows(/manual mode/);
    // It takes what is typed before it has the server's tools, too.
    for (let tries = 0; tries < 60; tries += 1) {
      const asked = model.turns.length;
      await say('ready?');
      const { tools } = await until('the model to be asked', () => model.turns[asked]);
      if (tools.includes(SEND)) return;
    }
    throw new Error('Claude Code has no tools of the server');
  };
  /** A turn of the model's that began with this. */
  const turnWith = async (words: RegExp): Promise<ClaudeTurn> =>
    await until(
      `the model to be told ${words}`,
      () => model.turns.find(({ newest }) => words.test(newest)),
      30_000,
    ).catch(async (error: unknown) => {
      throw new Error(
        `${await terminal.screen()}\n${model.turns.map(({ newest, tools }) => `${tools.length} ${newest.slice(0, 300)}`).join('\n---\n')}`,
        { cause: error },
      );
    });

  test('a send goes to the background, the permission is asked in a form, and the result wakes the model', async (context) => {
    needTmux(context);
    await start();
    await say('send it: bash: echo 42');
    await turnWith(/started server-side task [0-9a-f-]{36}\. It was moved to the background/);
    await terminal.shows(/1 MCP task still running/);
    const form = await terminal.shows(/requests your input[^]*Esc to answer later/);
    expect(form).toMatch(/The agent on worker[^]*asks for permission: bash\s+```\s+echo 42\s+```/);
    for (const [key, shown] of [
      ['Right', /❯ ◯ once/],
      ['Enter', /✔ Allow it\?: once/],
      ['Down', /❯ Accept/],
    ] as const) {
      await press(key, (screen) => shown.test(screen));
    }
    await press('Enter', (screen) => !screen.includes('requests your input'));
    // Nothing is typed any more.
    const { newest } = await turnWith(/<task-notification>/);
    expect(newest).toContain(toolReply('bash', '42'));
    expect(newest).toMatch(/allowed once: permission/);
    expect(stage.model.turns('bash: echo 42')).toBe(1);
  });

  test('killed while the agent works, it finds the result with --continue', async (context) => {
    needTmux(context);
    const message = 'gate-mid night: before, |and after';
    await say(`send it: ${message}`);
    await stage.model.waitForGate('night');
    await terminal.shows(/1 MCP task still running/);
    const claude = await realpath(CLAUDE);
    for (const pid of await processesIn(temp.tmp))
      if ((await readlink(`/proc/${pid}/exe`).catch(() => '')) === claude) process.kill(pid, 'SIGKILL');
    await until('the server to end with it', async () =>
      (
        await Promise.all(
          (await processesIn(temp.tmp)).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
        )
      ).every((line) => !line.includes(SERVER_SCRIPT)),
    );
    stage.model.release('night');
    const told = model.turns.length;
    await start('--continue');
    const { newest } = await until(
      'the result',
      () => model.turns.slice(told).find(({ newest: text }) => text.includes(expectedReply(message))),
      60_000,
    );
    expect(newest).toContain('<task-notification>');
    expect(stage.model.turns(message)).toBe(1);
  });
});

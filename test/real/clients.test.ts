import { once } from 'node:events';
import { mkdir, readFile, readlink, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import {
  type ClaudeModel,
  type ClaudeReply,
  type ClaudeTurn,
  type ClientModel,
  startClaudeModel,
  startCodexModel,
  startGeminiModel,
} from '../rig/model/client-models.ts';
import { type ForwardedPort, forwardInto } from '../rig/network/forwarded-port.ts';
import { expectedReply, toolReply } from '../rig/model/model-script.ts';
import { inside, NamespaceSet, spawnIn } from '../rig/network/namespaces.ts';
import { isMissing } from '../rig/opencode/opencode-binaries.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir } from '../rig/temp.ts';
import { needTmux, openTmux, type TmuxTerminal } from '../rig/programs/tmux.ts';
import { until } from '../rig/wait.ts';
import { component, openStage, serverCommand, type Stage } from './stage.ts';

const CLAUDE = component('@anthropic-ai/claude-code-linux-x64/claude');
const CODEX = component('codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex');
const GEMINI = component('@google/gemini-cli/bundle/gemini.js');

const temp = tempDir('clients');
const HOME = { HOME: temp.path, TMPDIR: temp.tmp };
let stage: Stage;
let namespaces: NamespaceSet;
/** Clients look for updates and report home, so they run where they reach only their model and the instance. */
let namespace: string;
const ports: ForwardedPort[] = [];
let server: { readonly command: string; readonly args: readonly string[] };

async function reachable(...wanted: readonly number[]): Promise<void> {
  ports.push(...(await Promise.all(wanted.map((port) => forwardInto(namespace, port, port)))));
}

beforeAll(async () => {
  stage = await openStage();
  const opencode = await stage.opencode();
  await stage.register('worker', opencode);
  namespaces = await NamespaceSet.open('clients');
  namespace = await namespaces.add('home');
  await reachable(opencode.port);
  const [command, ...args] = serverCommand(stage);
  server = { command, args };
});
afterAll(async () => {
  await endProcessesIn(temp.tmp);
  for (const port of ports) port.close();
  await namespaces.close();
  await stage.close();
  await temp.close();
});

const canEnter = process.getuid?.() === 0;
const SEND = 'mcp__opencode__send';

/** `send it: X` makes the model send X. */
function reply({ newest, isResult, tools }: ClaudeTurn): ClaudeReply {
  const message = /send it: (.+)/.exec(newest)?.[1];
  if (message !== undefined && !isResult && tools.includes(SEND))
    return { tool: SEND, input: { instance: 'worker', message } };
  return `read ${newest.length} characters`;
}

describe.skipIf(isMissing(CLAUDE) || !canEnter)('Claude Code in a terminal', () => {
  let model: ClaudeModel;
  let terminal: TmuxTerminal;

  beforeAll(async () => {
    model = await startClaudeModel(reply);
    await reachable(model.port);
    const directory = join(temp.path, 'project');
    await mkdir(directory);
    const key = 'sk-ant-scripted-key-of-the-tests';
    await writeFile(
      join(temp.path, '.claude.json'),
      JSON.stringify({
        hasCompletedOnboarding: true,
        theme: 'dark',
        customApiKeyResponses: { approved: [key.slice(-20)], rejected: [] },
        mcpServers: { opencode: { type: 'stdio', ...server } },
        projects: { [directory]: { hasTrustDialogAccepted: true, hasCompletedProjectOnboarding: true } },
      }),
    );
    const env = {
      ...HOME,
      PATH: process.env['PATH'] ?? '',
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
    await model[Symbol.asyncDispose]();
  });

  const say = async (text: string): Promise<void> => {
    await terminal.type(text);
    await terminal.shows(new RegExp(`❯\\s${text.replace(/[?|]/g, '\\$&')}`));
    await terminal.type('', 'Enter');
  };
  /** A key that comes while the form is drawn is lost. */
  const press = async (key: string, isDone: (screen: string) => boolean): Promise<void> => {
    for (let tries = 0; tries < 10; tries += 1) {
      await terminal.type('', key);
      const look = async (): Promise<boolean> => isDone(await terminal.screen());
      if (await until(`the effect of ${key}`, look, 4_000).catch(() => false)) return;
    }
    throw new Error(`${key} has no effect:\n${await terminal.screen()}`);
  };
  const start = async (...more: readonly string[]): Promise<void> => {
    await terminal.type(
      ['clear;', CLAUDE, '--permission-mode', 'default', '--allowedTools', SEND, ...more].join(' '),
      'Enter',
    );
    await terminal.shows(/manual mode/);
    // It takes messages even before it has the server's tools.
    for (let tries = 0; tries < 60; tries += 1) {
      const asked = model.turns.length;
      await say('ready?');
      const { tools } = await until('the model to be asked', () => model.turns[asked]);
      if (tools.includes(SEND)) return;
    }
    throw new Error('Claude Code has no tools of the server');
  };
  /** The turn of the model whose newest message matches. */
  const turnWith = async (words: RegExp): Promise<ClaudeTurn> =>
    await until(`the model to get ${words}`, () => model.turns.find(({ newest }) => words.test(newest)), 30_000).catch(
      async (error: unknown) => {
        throw new Error(
          `${await terminal.screen()}\n${model.turns.map(({ newest, tools }) => `${tools.length} ${newest.slice(0, 300)}`).join('\n---\n')}`,
          { cause: error },
        );
      },
    );

  test('a send goes to the background, the person is asked for permission in a form, and the result wakes the model', async (context) => {
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
    // Without another key.
    const { newest } = await turnWith(/<task-notification>/);
    expect(newest).toContain(toolReply('bash', '42'));
    expect(newest).toMatch(/allowed once: permission/);
    expect(stage.model.turns('bash: echo 42')).toBe(1);
  });

  test('after it was killed while the agent worked, --continue gives it the result', async (context) => {
    needTmux(context);
    const message = 'gate-mid night: before, |and after';
    await say(`send it: ${message}`);
    await stage.model.waitForGate('night');
    await terminal.shows(/1 MCP task still running/);
    const claude = await realpath(CLAUDE);
    for (const pid of await processesIn(temp.tmp))
      if ((await readlink(`/proc/${pid}/exe`).catch(() => '')) === claude) process.kill(pid, 'SIGKILL');
    const [script = ''] = server.args;
    await until('the server to end with it', async () =>
      (
        await Promise.all(
          (await processesIn(temp.tmp)).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
        )
      ).every((line) => !line.includes(script)),
    );
    stage.model.release('night');
    const before = model.turns.length;
    await start('--continue');
    const { newest } = await until(
      'the result',
      () => model.turns.slice(before).find(({ newest: text }) => text.includes(expectedReply(message))),
      60_000,
    );
    expect(newest).toContain('<task-notification>');
    expect(stage.model.turns(message)).toBe(1);
  });
});

describe.skipIf([CODEX, GEMINI].some(isMissing) || !canEnter)('without a terminal', () => {
  const MESSAGE = 'echo: sent by a client';
  const CALL = { name: 'send', input: { instance: 'worker', message: MESSAGE } };
  let codex: ClientModel;
  let gemini: ClientModel;

  beforeAll(async () => {
    [codex, gemini] = await Promise.all([startCodexModel(CALL), startGeminiModel(CALL)]);
    await reachable(codex.port, gemini.port);
    await Promise.all(['.codex', '.gemini'].map((folder) => mkdir(join(temp.path, folder))));
    const toml = [
      'model = "scripted"',
      'model_provider = "here"',
      '[model_providers.here]',
      'name = "here"',
      `base_url = "${codex.url}/v1"`,
      'wire_api = "responses"',
      '[mcp_servers.opencode]',
      `command = ${JSON.stringify(server.command)}`,
      `args = ${JSON.stringify(server.args)}`,
      'startup_timeout_sec = 60',
    ];
    await writeFile(join(temp.path, '.codex/config.toml'), toml.join('\n'));
    await writeFile(
      join(temp.path, '.gemini/settings.json'),
      JSON.stringify({
        security: { auth: { selectedType: 'gemini-api-key' }, folderTrust: { enabled: false } },
        privacy: { usageStatisticsEnabled: false },
        mcpServers: { opencode: { ...server, trust: true } },
      }),
    );
  });
  afterAll(async () => {
    await Promise.all([codex[Symbol.asyncDispose](), gemini[Symbol.asyncDispose]()]);
  });

  async function run(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
    const child = spawnIn(namespace, command, {
      cwd: temp.path,
      env: { ...HOME, PATH: '/usr/bin:/bin', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    if (child.stdout === null || child.stderr === null) throw new Error('Expected pipes');
    const ended = once(child, 'exit');
    const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
    if (code !== 0) throw new Error(`${command[0]} ended with ${code}:\n${stdout}\n${stderr}`);
    return stdout;
  }

  test('Codex sends to an opencode and gets its answer', async () => {
    process.stdout.write(await run([CODEX, '--version']));
    const flags = ['--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox'];
    expect(await run([CODEX, 'exec', ...flags, 'Ask the worker.'])).toContain(expectedReply(MESSAGE));
  });

  test('Gemini CLI sends to an opencode and gets its answer', async () => {
    const env = { GEMINI_API_KEY: 'scripted', GOOGLE_GEMINI_BASE_URL: gemini.url };
    process.stdout.write(`gemini ${await run([process.execPath, GEMINI, '--version'], env)}`);
    const flags = ['--yolo', '--model', 'gemini-2.5-flash', '--prompt', 'Ask the worker.'];
    expect(await run([process.execPath, GEMINI, ...flags], env)).toContain(expectedReply(MESSAGE));
  });
});

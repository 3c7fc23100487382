import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startClaudeModel } from '../rig/model/client-models.ts';
import { type DocBlock, docBlocks, docPages } from '../rig/programs/doc-blocks.ts';
import { Newcomer, type Ran } from '../rig/programs/newcomer.ts';
import { isMissing, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { type ScriptedModel, startScriptedModel } from '../rig/model/scripted-model.ts';
import { needSshd } from '../rig/network/sshd.ts';
import type { Answers } from '../rig/programs/typed-terminal.ts';

const COMPONENTS = join(import.meta.dirname, '../components/node_modules');
const CLAUDE = join(COMPONENTS, '@anthropic-ai/claude-code-linux-x64/claude');

/** Blocks of commands that this test does not run, by page and first line, and why. Every other one is marked with `run`. */
const NOT_RUN: Readonly<Record<string, string>> = {
  'README.md: npm ci && npm run --silent demo': 'starts three more opencodes; the picture in the README shows a run',
  'README.md: npm ci && npm run check': 'this test is a part of it',
  'docs/docker.md: docker build -f docs/docker/Dockerfile -t opencode-mcp .':
    'needs a Docker daemon; test/real/container.test.ts makes the same container',
  'docs/lan.md: opencode-connected --lan       # on the laptop: also listens on the LAN, behind a password, and advertises itself':
    'needs two machines on a LAN; test/lan has them',
  'docs/notifications.md: opencode-mcp notify --test':
    'needs a notification channel; test/commands/notify.test.ts has one',
  'docs/opencode-connected.md: cd ~/my-project': 'the README has the same block',
  'docs/page.md: opencode-mcp dashboard            # opens the browser; --print shows the address instead':
    'needs a browser; test/page/revoke.test.ts runs it',
  "docs/shell.md: echo 'source <(opencode-mcp completion bash)' >> ~/.bashrc":
    'needs three shells; test/commands/completion/shells.test.ts has them',
  'docs/shell.md: opencode-mcp attach laptop                  # a new session, as opencode begins':
    'needs a terminal; test/real/attach.test.ts has one',
  'docs/shell.md: opencode-mcp open laptop           # the latest session, or SESSION; Ctrl-C ends it':
    'needs a browser; test/attach/web-forwarder.test.ts fetches the page',
  'docs/troubleshooting.md: opencode-mcp doctor                # everything: what works, what does not, what to type':
    'ends with 1 if something is broken; test/doctor runs it',
  'docs/tailnet.md: sh "$(npm root --global)/opencode-mcp/scripts/install-node.sh"':
    'needs systemd and a tailnet; test/node/live-unit.test.ts and test/tailnet have them',
};

const ANSWERS: Answers = [
  [/^Write .* \[y\/N\] $/m, 'y\r'],
  [/^number or word .*> $/m, 'once\r'],
];

/** The model's scripts for the messages in the pages, in the language of `test/rig/model/model-script.ts`. */
const SCRIPTS: Readonly<Record<string, string>> = {
  'Run the tests.': 'echo: 42 tests passed',
  'run the tests and fix what fails': 'bash: echo 42 tests passed',
  'update the changelog': 'echo: The changelog is up to date.',
};

/** Patterns that the output of a block must match, by the block's last line. */
const EXPECTED_OUTPUT: Readonly<Record<string, RegExp>> = {
  'opencode-mcp init': /Claude Code: written/,
  'opencode-mcp send my-project run the tests and fix what fails': /bash returned: 42 tests passed/,
  'ssh you@relay opencode-mcp list': /laptop-my-project.* idle/,
  'opencode-mcp list': /^my-project /m,
};

const keyOf = ({ page, commands }: DocBlock): string => `${page}: ${commands.split('\n', 1)[0]}`;
const isRun = ({ marks }: DocBlock): boolean => marks[0] === 'run';

test('every block of commands in the pages is marked to run, or listed with a reason', async () => {
  const blocks = (await Promise.all((await docPages()).map(docBlocks))).flat();
  expect(blocks.filter(isRun).length).toBeGreaterThan(10);
  expect(blocks.flatMap((block) => (isRun(block) ? [] : [keyOf(block)])).toSorted()).toEqual(
    Object.keys(NOT_RUN).toSorted(),
  );
});

describe.skipIf([CLAUDE, PINNED_OPENCODE].some(isMissing))('a newcomer, with an empty home', () => {
  let model: ScriptedModel;
  let newcomer: Newcomer;
  beforeAll(async () => {
    model = await startScriptedModel((text) => SCRIPTS[text] ?? text);
    newcomer = await Newcomer.open({
      model,
      answers: ANSWERS,
      programs: { claude: CLAUDE, opencode: PINNED_OPENCODE },
    });
  });
  afterAll(async () => {
    await newcomer[Symbol.asyncDispose]();
    await model.close();
  });

  async function runBlock(block: DocBlock | undefined, more: Readonly<Record<string, string>> = {}): Promise<Ran> {
    if (block === undefined) throw new Error('the page has fewer blocks than this test expects');
    const startMs = performance.now();
    const ran = await newcomer.run(block, more);
    process.stdout.write(`${keyOf(block)}: ${Math.round(performance.now() - startMs)} ms\n`);
    expect(ran.code, `${keyOf(block)}\n${ran.shown}`).toBe(0);
    const last = block.commands.trimEnd().split('\n').at(-1) ?? '';
    expect(ran.shown).toMatch(EXPECTED_OUTPUT[last] ?? /^/);
    return ran;
  }

  test(
    'the three commands of the README lead to the first answer in Claude Code',
    { timeout: 400_000 },
    async (context) => {
      needSshd(context);
      const [install, start, ...others] = (await docBlocks('README.md')).filter(isRun);
      expect(install?.commands.trimEnd().split('\n')).toHaveLength(3);
      const startMs = performance.now();
      await runBlock(install, newcomer.installing);
      const installedMs = performance.now();
      await runBlock(start);
      const calls = [
        { tool: 'mcp__opencode__instances', input: {} },
        { tool: 'mcp__opencode__send', input: { instance: 'my-project', message: 'Run the tests.' } },
      ];
      await using claudeModel = await startClaudeModel(({ results, newest }) => calls[results] ?? newest);
      expect(await runClaude('What are my OpenCode instances doing?', claudeModel.url)).toContain('42 tests passed');
      const minutes = (fromMs: number): string => ((performance.now() - fromMs) / 60_000).toFixed(2);
      process.stdout.write(
        `From git clone to the first answer: ${minutes(startMs)} minutes, ${minutes(installedMs)} of them after the installation\n`,
      );
      // opencode is a client too: init has written to its file.
      expect(await runOpencode('plan: [["opencode_instances",{}]]')).toMatch(
        /instances returned: laptop-my-project: idle/,
      );
      for (const block of others) await runBlock(block);
    },
  );

  /** Runs opencode without a terminal; its model makes the calls in `message`. */
  async function runOpencode(message: string): Promise<string> {
    const running = promisify(execFile)('opencode', ['run'], { cwd: newcomer.home, env: newcomer.env });
    // opencode would quote the message if it were an argument.
    running.child.stdin?.end(message);
    return (await running).stdout;
  }

  /** Runs Claude Code without a terminal, with the model at `url`. */
  async function runClaude(question: string, url: string): Promise<string> {
    const env = {
      ...newcomer.env,
      ANTHROPIC_BASE_URL: url,
      ANTHROPIC_API_KEY: 'scripted',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      DISABLE_AUTOUPDATER: '1',
    };
    const running = promisify(execFile)('claude', ['-p', question, '--allowedTools', 'mcp__opencode'], {
      cwd: newcomer.home,
      env,
    });
    running.child.stdin?.end();
    return (await running).stdout;
  }

  test('the blocks of the other pages run, from top to bottom', { timeout: 400_000 }, async (context) => {
    needSshd(context);
    for (const page of (await docPages()).filter((name) => name !== 'README.md')) {
      for (const block of (await docBlocks(page)).filter(isRun)) await runBlock(block);
      await newcomer.leave(page);
    }
  });
});

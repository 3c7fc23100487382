// npm run demo: the main job on three real opencodes whose model is a script, so it needs no key and no network.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

import { colourOf, paintFor } from '../src/commands/terminal/paint.ts';
import { cutEnd } from '../src/commands/terminal/table.ts';
import { NO_MULTICAST } from '../test/rig/no-multicast.ts';
import { PINNED_OPENCODE } from '../test/rig/opencode/opencode-binaries.ts';
import { createProject } from '../test/rig/opencode/opencode-sandbox.ts';
import { startOpencode } from '../test/rig/opencode/opencode.ts';
import { openRegistry, type Registry } from '../test/rig/registry.ts';
import { type ScriptedModel, startScriptedModel } from '../test/rig/model/scripted-model.ts';
import { tempDir } from '../test/rig/temp.ts';

const SERVER = fileURLToPath(new URL('../dist/opencode-mcp.js', import.meta.url));
const FLEET = [
  ['laptop', 'web'],
  ['desk', 'api'],
  ['server', 'docs'],
] as const;
/** Scripts of the messages, in the language of `test/rig/model/model-script.ts`. */
const SCRIPTS: Readonly<Record<string, string>> = {
  'Summarise what changed this week.':
    'echo: The login page is faster, two bugs are fixed, and the docs have a new index.',
  'Run the tests.': 'bash: echo 42 tests passed',
};

type Env = Readonly<Record<string, string>>;

if (process.platform !== 'linux')
  fail('it runs on Linux only, because it finds its own processes in /proc; README.md says what else is supported');
else if (!existsSync(PINNED_OPENCODE))
  fail(
    `there is no opencode at ${PINNED_OPENCODE}; npm says above why it could not install it. Check the network, then run it again: npm run --silent demo`,
  );
else
  await demo().catch((error: unknown) =>
    fail(
      `${error instanceof Error ? error.message : String(error)}\nRun it again; a busy machine may be too slow for three opencodes.`,
    ),
  );

async function demo(): Promise<void> {
  await using temp = tempDir('demo');
  const env: Env = {
    PATH: process.env['PATH'] ?? '',
    HOME: temp.path,
    TERM: process.env['TERM'] ?? 'dumb',
    RELAY_REGISTRY_DIR: `${temp.path}/registry`,
    TRANSPORT: 'local-relay',
    HEALTH_CHECK_TIMEOUT_MS: '30000',
    ...NO_MULTICAST,
  };
  say(
    'Three real opencodes start, as if on a laptop, a desk and a server. Their model is a script: nothing leaves this machine.',
  );
  await using model = await startScriptedModel((text) => SCRIPTS[text] ?? text);
  const registry = await openRegistry(`${temp.path}/registry`);
  const opencodes = await Promise.all(
    FLEET.map(([host, folder]) => start({ model, registry }, temp.path, host, folder)),
  );
  try {
    say('What does each of them do?');
    await run(env, 'list');
    say('Give one of them work. The answer is shown as it is written.');
    await run(env, 'send', 'laptop-web', 'Summarise what changed this week.');
    say('Some work needs your permission. The agent stops and says what it wants to run.');
    await run(env, 'send', 'desk-api', 'Run the tests.');
    say('The list shows who needs you.');
    await run(env, 'list');
    say('You allow that command once, and the agent goes on.');
    await run(env, 'respond', 'desk-api', '--reply', 'once');
    say(
      'Claude Code and other MCP clients do the same with tools. This is what a model reads when it calls `send` on two machines at once:',
    );
    await callTool(env, 'send', {
      instance: ['laptop-web', 'server-docs'],
      message: 'Summarise what changed this week.',
    });
    say(`That was the main job. With your own opencodes:

  npm install --global .    installs the programs
  opencode-mcp init         adds opencode-mcp to your MCP clients
  opencode-connected        starts opencode so that it is found; run it in one of your projects

README.md has the rest: your other machines, and what all this means for security.`);
  } finally {
    await Promise.all(opencodes.map((one) => one.close()));
  }
}

/** Starts an opencode in its own project and registers it as `opencode-connected` does. */
async function start(
  { model, registry }: { readonly model: ScriptedModel; readonly registry: Registry },
  home: string,
  host: string,
  folder: string,
): ReturnType<typeof startOpencode> {
  const directory = join(home, folder);
  await mkdir(directory);
  await createProject(directory);
  const opencode = await startOpencode({ model, directory, password: 'demo' });
  const { port } = opencode;
  const name = `${host}-${folder}`;
  await registry.add({ id: name, name, hostname: host, port, localPort: port, cwd: directory }, { password: 'demo' });
  // Its first answer takes seconds.
  await fetch(`${opencode.url}/session/status`, { headers: opencode.headers });
  return opencode;
}

/** Runs opencode-mcp in this terminal, without input: the script answers. */
async function run(env: Env, ...args: readonly string[]): Promise<void> {
  process.stdout.write(
    `\n  $ opencode-mcp ${args.map((word) => (word.includes(' ') ? `"${word}"` : word)).join(' ')}\n`,
  );
  const isList = args[0] === 'list';
  const child = spawn(process.execPath, [SERVER, ...args], {
    env,
    stdio: ['ignore', isList ? 'pipe' : 'inherit', 'inherit'],
  });
  let table = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (table += text));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  process.stdout.write(narrow(table));
  // 3: a turn waits for somebody.
  if (code !== 0 && code !== 3) throw new Error(`opencode-mcp ${args.join(' ')} ended with code ${code}`);
}

async function callTool(env: Env, name: string, args: Record<string, unknown>): Promise<void> {
  const client = new Client({ name: 'opencode-mcp-demo', version: '1.0.0' });
  await client.connect(new StdioClientTransport({ command: process.execPath, args: [SERVER], env }));
  try {
    process.stdout.write(`\n  ${name} ${JSON.stringify(args)}\n`);
    const result = await client.callTool({ name, arguments: args });
    const [first] = result.content as { readonly text?: string }[];
    // Ids mean nothing to a newcomer.
    process.stdout.write(`${(first?.text ?? '').replaceAll(/\b(ses|msg)_\w+/g, '$1_…')}\n`);
    if (result.isError === true) throw new Error(`${name} failed`);
  } finally {
    await client.close();
  }
}

/** The list as on a narrow terminal: without the columns that hold only temporary paths and ports here. */
function narrow(list: string): string {
  const end = list.indexOf('DIRECTORY');
  if (end === -1) return list;
  const paint = paintFor(process.stdout);
  return list
    .split('\n')
    .map((line) => cutEnd(line.slice(0, end).trimEnd(), process.stdout.columns || end))
    .map((line, index) =>
      index === 0
        ? paint(line, 'bold')
        : line.replace(/^(\S+ +)(\S+)/, (_, name: string, state: string) => name + paint(state, colourOf(state))),
    )
    .join('\n');
}

function fail(reason: string): void {
  process.stderr.write(`\nThe demo did not work: ${reason}\n`);
  process.exitCode = 1;
}

function say(text: string): void {
  const width = process.stdout.columns || 120;
  const lines = text.replaceAll(new RegExp(`(?=.{${width}})(.{1,${width}}) `, 'g'), '$1\n');
  process.stdout.write(`\n${paintFor(process.stdout)(lines, 'bold')}\n`);
}

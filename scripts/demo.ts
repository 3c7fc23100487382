// npm run demo: the main job, by hand, on three real opencodes whose model is a script, so no key and no network are needed.
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

import { createProject } from '../test/rig/opencode-sandbox.ts';
import { startOpencode } from '../test/rig/opencode.ts';
import { openRegistry } from '../test/rig/registry.ts';
import { startScriptedModel } from '../test/rig/scripted-model.ts';
import { tempDir } from '../test/rig/temp.ts';

const SERVER = fileURLToPath(new URL('../dist/opencode-mcp.js', import.meta.url));
const FLEET = [
  ['laptop', 'web'],
  ['desk', 'api'],
  ['server', 'docs'],
] as const;
/** What the model does with a message, in the language of `test/rig/model-script.ts`. */
const SCRIPTS: Readonly<Record<string, string>> = {
  'Summarise what changed this week.':
    'echo: The login page is faster, two bugs are fixed, and the docs have a new index.',
  'Run the tests.': 'bash: echo 42 tests passed',
};

await using temp = tempDir('demo');
const env = {
  PATH: process.env['PATH'] ?? '',
  HOME: temp.path,
  TERM: process.env['TERM'] ?? 'dumb',
  RELAY_REGISTRY_DIR: `${temp.path}/registry`,
  TRANSPORT: 'local-relay',
  HEALTH_CHECK_TIMEOUT_MS: '30000',
};

say(
  'Three real opencodes start, as if on a laptop, a desk and a server. Their model is a script: nothing leaves this machine.',
);
await using model = await startScriptedModel((text) => SCRIPTS[text] ?? text);
const registry = await openRegistry(env.RELAY_REGISTRY_DIR);
const opencodes = await Promise.all(FLEET.map(([host, folder]) => start(host, folder)));
try {
  say('What does each of them do?');
  await run('list');
  say('Give one of them work. The answer is shown as it is written.');
  await run('send', 'laptop-web', 'Summarise what changed this week.');
  say('Some work needs your permission. The agent stops and says what it wants to run.');
  await run('send', 'desk-api', 'Run the tests.');
  say('The list shows who needs you.');
  await run('list');
  say('You allow that command once, and the agent goes on.');
  await run('respond', 'desk-api', '--reply', 'once');
  say(
    'Claude Code and other MCP clients do the same with tools. This is what a model reads when it calls `send` on two machines at once:',
  );
  await callTool('send', { instance: ['laptop-web', 'server-docs'], message: 'Summarise what changed this week.' });
  say(`That was the main job. With your own opencodes:

  npm install --global .    installs the programs
  opencode-mcp init         tells your MCP clients about them
  opencode-connected        starts opencode so that it is found; run it in one of your projects

README.md has the rest: your other machines, and what all this means for security.`);
} finally {
  await Promise.all(opencodes.map((one) => one.close()));
}

/** Starts an opencode in a project of its own, and registers it as `opencode-connected` does. */
async function start(host: string, folder: string): ReturnType<typeof startOpencode> {
  const directory = `${temp.path}/${folder}`;
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

/** Runs opencode-mcp in this terminal. Nobody is asked: it is the script that answers. */
async function run(...args: readonly string[]): Promise<void> {
  process.stdout.write(
    `\n  $ opencode-mcp ${args.map((word) => (word.includes(' ') ? `"${word}"` : word)).join(' ')}\n`,
  );
  const child = spawn(process.execPath, [SERVER, ...args], { env, stdio: ['ignore', 'inherit', 'inherit'] });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  // 3: it waits for somebody.
  if (code !== 0 && code !== 3) throw new Error(`opencode-mcp ${args.join(' ')} ended with code ${code}`);
}

async function callTool(name: string, args: Record<string, unknown>): Promise<void> {
  const client = new Client({ name: 'opencode-mcp-demo', version: '1.0.0' });
  await client.connect(new StdioClientTransport({ command: process.execPath, args: [SERVER], env }));
  try {
    process.stdout.write(`\n  ${name} ${JSON.stringify(args)}\n`);
    const result = await client.callTool({ name, arguments: args });
    const [first] = result.content as { readonly text?: string }[];
    process.stdout.write(`${first?.text ?? ''}\n`);
    if (result.isError === true) throw new Error(`${name} failed`);
  } finally {
    await client.close();
  }
}

function say(text: string): void {
  const isBold = process.stdout.isTTY && process.env['NO_COLOR'] === undefined;
  process.stdout.write(`\n${isBold ? `\u001b[1m${text}\u001b[0m` : text}\n`);
}

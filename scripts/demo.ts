// npm run demo: the main job on a real opencode whose model is a script, so no key and no network are needed.
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

import { openStage } from '../test/real/stage.ts';
import { tempDir } from '../test/rig/temp.ts';

const SERVER = fileURLToPath(new URL('../dist/opencode-mcp.js', import.meta.url));
const FLEET = [
  { name: 'laptop-web', hostname: 'laptop' },
  { name: 'desk-api', hostname: 'desk' },
  { name: 'server-docs', hostname: 'server' },
] as const;
const NAMES = FLEET.map(({ name }) => name);

await using temp = tempDir('opencode-mcp-demo');
say('Starting three real opencodes with a scripted model …');
await using stage = await openStage();
for (const machine of FLEET) {
  const opencode = await stage.opencode({ password: 'demo' });
  await stage.registry.add(
    { id: machine.name, ...machine, port: opencode.port, localPort: opencode.port, cwd: opencode.directory },
    { password: 'demo' },
  );
}

const client = new Client({ name: 'opencode-mcp-demo', version: '1.0.0' });
await client.connect(
  new StdioClientTransport({
    command: process.execPath,
    args: [SERVER, '--registry-dir', stage.registry.path, '--mdns-interfaces', 'none'],
    env: { PATH: process.env['PATH'] ?? '', HOME: temp.path },
  }),
);
try {
  say('Started opencode-mcp as an MCP client does.');
  const { tools } = await client.listTools();
  show(`tools/list: ${tools.map(({ name }) => name).join(', ')}`);

  await call('instances', {});
  await call('send', { instance: NAMES, message: 'slow 4 100: Briefed, ready, step' });
  await call('send', { instance: 'desk', message: 'bash: echo 42 tests passed' });
  await call('instances', {});
  await call('respond', { instance: 'desk', reply: 'once' });
  await call('wait', { instances: NAMES, for: 'all' });
  await call('read', { instance: 'desk', message_limit: 2 });
} finally {
  await client.close();
}
say(
  'That was the main job. `node dist/opencode-mcp.js help` shows what else there is; README.md how to connect your own machines.',
);

async function call(name: string, args: Record<string, unknown>): Promise<void> {
  title(`${name} ${JSON.stringify(args)}`);
  const result = await client.callTool({ name, arguments: args }, undefined, {
    onprogress: ({ message }) => process.stdout.write(message ?? ''),
  });
  process.stdout.write('\n');
  show(textOf(result));
  if (result.isError === true) throw new Error(`${name} failed`);
}

function textOf(result: Awaited<ReturnType<Client['callTool']>>): string {
  const [first] = result.content as { type: string; text?: string }[];
  return first?.text ?? '';
}

function title(text: string): void {
  process.stdout.write(`\n\u001b[1m▸ ${text}\u001b[0m\n`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function show(text: string): void {
  process.stdout.write(`${text.replaceAll(/^/gm, '  ')}\n`);
}

// npm run demo: the main job on a real opencode whose model is a script, so no key and no network are needed.
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

import { startOpencode } from '../test/rig/opencode.ts';
import { openRegistry } from '../test/rig/registry.ts';
import { startScriptedModel } from '../test/rig/scripted-model.ts';
import { tempDir } from '../test/rig/temp.ts';

const SERVER = fileURLToPath(new URL('../dist/opencode-mcp.js', import.meta.url));
const TEXT = 'Three machines, one list: every agent answers here. ';

await using temp = tempDir('opencode-mcp-demo');
await using model = await startScriptedModel();
say('Starting a real opencode with a scripted model …');
await using opencode = await startOpencode({ model, password: 'demo' });
say(opencode.describe());

const registry = await openRegistry(`${temp.path}/registry`);
const id = 'demo-instance';
const name = 'laptop-project';
await registry.add(
  { id, name, hostname: 'laptop', port: opencode.port, localPort: opencode.port, cwd: opencode.directory },
  { password: 'demo' },
);
say(`Registered it in ${registry.path}`);

const client = new Client({ name: 'opencode-mcp-demo', version: '1.0.0' });
await client.connect(
  new StdioClientTransport({
    command: process.execPath,
    args: [SERVER, '--registry-dir', registry.path, '--mdns-interfaces', 'none'],
    env: { PATH: process.env['PATH'] ?? '', HOME: temp.path },
  }),
);
try {
  say('Started opencode-mcp as an MCP client does.');
  const { tools } = await client.listTools();
  show(`tools/list: ${tools.map(({ name }) => name).join(', ')}`);

  await call('instances', {});

  title('send {"instance":"laptop","message":"…"}, as it streams');
  const result = await client.callTool(
    { name: 'send', arguments: { instance: 'laptop', message: `slow 8 150: ${TEXT}` } },
    undefined,
    { onprogress: ({ message }) => process.stdout.write(message ?? '') },
  );
  process.stdout.write('\n');
  show(textOf(result));

  await call('read', { instance: 'laptop', message_limit: 2 });
} finally {
  await client.close();
}
say(
  'That was the main job. `node dist/opencode-mcp.js --help` shows the settings; README.md how to connect your own machines.',
);

async function call(name: string, args: Record<string, unknown>): Promise<void> {
  title(`${name} ${JSON.stringify(args)}`);
  const result = await client.callTool({ name, arguments: args });
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

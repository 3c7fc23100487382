import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { expect, onTestFinished, test } from 'vitest';

import { startMcpChild, type McpChild, type McpChildOptions } from './mcp-child.ts';
import { tempDir } from '../temp.ts';

const resolve = createRequire(import.meta.url).resolve;
const sdk = (path: string): string => JSON.stringify(pathToFileURL(resolve(`@modelcontextprotocol/sdk/${path}`)).href);

const SERVER = `
import { McpServer } from ${sdk('server/mcp.js')};
import { StdioServerTransport } from ${sdk('server/stdio.js')};
const server = new McpServer({ name: 'tiny', version: '1.0.0' });
server.registerTool('environment', {}, () => ({ content: [{ type: 'text', text: Object.keys(process.env).sort().join() }] }));
server.registerTool('litter', {}, () => { console.log('not protocol'); return { content: [] }; });
await server.connect(new StdioServerTransport());
process.stdin.once('end', () => process.exit(0));
`;

async function start(source: string, options: McpChildOptions = {}): Promise<McpChild> {
  const temp = tempDir();
  onTestFinished(temp.close);
  const script = join(temp.path, 'server.mjs');
  await writeFile(script, source);
  return startMcpChild({ script, ...options });
}

test('a server sees nothing of the environment of the tests', async () => {
  await using child = await start(SERVER, { env: { SETTING: 'given' } });
  expect((await child.call('environment')).text).toBe('HOME,OPENCODE_MDNS_INTERFACES,PATH,SETTING,TMPDIR');
});

test('a server that writes anything but protocol to standard output fails at its end', async () => {
  const child = await start(SERVER);
  await child.call('litter');
  await expect(child.close()).rejects.toThrow('not protocol');
});

test('a server that does not start is reported with its standard error', async () => {
  await expect(start("console.error('cannot start'); process.exit(3);")).rejects.toThrow(/closed|cannot start/);
});

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

async function startScript(source: string, options: McpChildOptions = {}): Promise<McpChild> {
  const temp = tempDir();
  onTestFinished(temp.close);
  const script = join(temp.path, 'server.mjs');
  await writeFile(script, source);
  return startMcpChild({ script, ...options });
}

test('a server does not inherit the environment of the tests', async () => {
  await using child = await startScript(SERVER, { env: { SETTING: 'given' } });
  expect((await child.call('environment')).text).toBe('HOME,OPENCODE_MDNS_INTERFACES,PATH,SETTING,TMPDIR');
});

test('close rejects if the server wrote anything but protocol to standard output', async () => {
  const child = await startScript(SERVER);
  await child.call('litter');
  await expect(child.close()).rejects.toThrow('not protocol');
});

test('startMcpChild rejects with the standard error of a server that does not start', async () => {
  await expect(startScript("console.error('cannot start'); process.exit(3);")).rejects.toThrow(/closed|cannot start/);
});

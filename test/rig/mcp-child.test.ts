import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { describe, expect, it } from 'vitest';

import { startMcpChild, type McpChild, type McpChildOptions } from './mcp-child.ts';
import { processesIn } from './processes.ts';
import { tempDir } from './temp.ts';
import { until, within } from './wait.ts';

const resolve = createRequire(import.meta.url).resolve;
const sdk = (path: string): string => JSON.stringify(pathToFileURL(resolve(`@modelcontextprotocol/sdk/${path}`)).href);

/** A server with a tool for each thing that a child can do to its client. */
const SERVER = `
import { spawn } from 'node:child_process';
import { McpServer } from ${sdk('server/mcp.js')};
import { StdioServerTransport } from ${sdk('server/stdio.js')};
const server = new McpServer({ name: 'tiny', version: '1.0.0' });
const say = (text) => ({ content: [{ type: 'text', text }] });
server.registerTool('whoami', {}, () => say(JSON.stringify({ client: server.server.getClientVersion(), env: process.env, args: process.argv.slice(2) })));
server.registerTool('count', {}, async (extra) => {
  const { progressToken } = extra._meta ?? {};
  for (const progress of progressToken === undefined ? [] : [1, 2, 3]) {
    await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress } });
  }
  return say('line\\u2028separator');
});
server.registerTool('litter', {}, () => { console.log('not protocol'); return say('littered'); });
server.registerTool('orphan', {}, () => { spawn('sleep', ['600'], { detached: true, stdio: 'ignore' }).unref(); return say('begun'); });
console.error('tiny is up');
await server.connect(new StdioServerTransport());
process.stdin.once('end', () => process.exit(0));
`;

async function start(options: McpChildOptions = {}): Promise<McpChild & AsyncDisposable> {
  const temp = tempDir();
  const script = join(temp.path, 'server.mjs');
  await writeFile(script, SERVER);
  const child = await startMcpChild({ script, ...options });
  await temp.close();
  return child;
}

describe('an MCP server as a child', () => {
  it('sees nothing of our environment and the client that it is told', async () => {
    await using child = await start({
      args: ['--flag'],
      env: { SETTING: 'given' },
      clientInfo: { name: 'some-client', version: '7' },
    });
    const { text } = await child.call('whoami');
    const { client, env, args }: { client: unknown; env: Record<string, string>; args: string[] } = JSON.parse(text);
    expect(client).toMatchObject({ name: 'some-client', version: '7' });
    expect(Object.keys(env).toSorted()).toEqual(['HOME', 'OPENCODE_MDNS_INTERFACES', 'PATH', 'SETTING', 'TMPDIR']);
    expect(env['HOME']).toBe(child.home);
    expect(args).toEqual(['--flag']);
  });

  it('collects progress, stderr and every line of standard output', async () => {
    await using child = await start();
    expect(await child.waitForStderr(/tiny/)).toBe('tiny is up');
    const { text, progress } = await child.call('count');
    expect(progress.map((update) => update.progress)).toEqual([1, 2, 3]);
    expect(text).toBe('line\u2028separator');
    expect(child.stdout).toHaveLength(5);
    expect((await child.call('count', {}, { progress: false })).progress).toEqual([]);
    expect(child.strayOutput).toEqual([]);
  });

  it('is told off for anything but protocol on standard output', async () => {
    const child = await start();
    await child.call('litter');
    expect(child.strayOutput).toEqual(['not protocol']);
    await expect(child.close()).rejects.toThrow('not protocol');
  });

  it('is seen to exit by itself at the end of its input, and by a signal', async () => {
    await using polite = await start();
    polite.closeStdin();
    expect(await within(polite.exited, 'the exit')).toEqual({ code: 0, signal: null });
    await using killed = await start();
    killed.kill('SIGKILL');
    expect(await within(killed.exited, 'the exit')).toEqual({ code: null, signal: 'SIGKILL' });
  });

  it('is found out when it leaves a process behind, which then ends with the test', async () => {
    const child = await start();
    await child.call('orphan');
    child.closeStdin();
    await child.exited;
    const [orphan = 0] = await child.survivors();
    expect(readFileSync(`/proc/${orphan}/cmdline`, 'utf8')).toContain('sleep');
    await child.close();
    await until('the orphan to end', async () => (await processesIn(join(child.home, 'tmp'))).length === 0);
  });

  it('reports what it said when it does not come up', async () => {
    const temp = tempDir();
    const script = join(temp.path, 'broken.mjs');
    await writeFile(script, "console.error('cannot start'); process.exit(3);");
    await expect(startMcpChild({ script })).rejects.toThrow(/closed|cannot start/);
    await temp.close();
  });
});

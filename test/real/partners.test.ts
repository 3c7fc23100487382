import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { NEWEST_NODE } from '../mcp/raw-server.ts';
import { startFaultProxy, type FaultProxy } from '../rig/network/fault-proxy.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import type { Opencode } from '../rig/opencode/opencode.ts';
import { isMissing } from '../rig/opencode/opencode-binaries.ts';
import { freePort } from '../rig/ports.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { CLAUDE_CODE, component, type Data, openStage, serverCommand, type Stage } from './stage.ts';

const INSPECTOR = component('@modelcontextprotocol/inspector/clients/launcher/build/index.js');
const SUPERGATEWAY = component('supergateway/dist/index.js');

/** It listens on every interface and has no option for it; what it serves drives a shell. */
const LOOPBACK_ONLY = `data:text/javascript,${encodeURIComponent(`
import net from 'node:net';
const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, ...rest) {
  return typeof port === 'number' ? listen.call(this, { port, host: '127.0.0.1' }, ...rest) : listen.call(this, port, ...rest);
};`)}`;

let stage: Stage;
let opencode: Opencode;
let proxy: FaultProxy;
let temp: TempDir;

beforeAll(async () => {
  temp = tempDir('opencode-mcp-partners');
  stage = await openStage();
  opencode = await stage.opencode();
  proxy = await startFaultProxy(opencode.url);
  await stage.register('worker', opencode, { port: proxy.port });
});
afterAll(async () => {
  await endProcessesIn(temp.tmp);
  await proxy.close();
  await stage.close();
  await temp.close();
});

/** Starts a program of test/components on the newest Node: some need one. */
function launch(args: readonly string[]): ChildProcess {
  return spawn(NEWEST_NODE, args, {
    cwd: temp.path,
    env: { PATH: process.env['PATH'] ?? '', HOME: temp.path, TMPDIR: temp.tmp },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(args: readonly string[]): Promise<Ended> {
  const child = launch(args);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  await within(once(child, 'close'), () => `the end of ${args.join(' ')}: ${stdout}${stderr}`, 90_000);
  return { code: child.exitCode, stdout, stderr };
}

describe.skipIf([NEWEST_NODE, INSPECTOR].some(isMissing))("the MCP Inspector's command line", () => {
  const inspect = (...args: string[]): Promise<Ended> => run([INSPECTOR, '--cli', ...serverCommand(stage), ...args]);

  test('accepts the tools, calls one of them, and leaves no server running', async () => {
    const listed = await inspect('--method', 'tools/list', '--strict');
    expect([listed.code, listed.stderr]).toEqual([0, '']);
    const { tools } = JSON.parse(listed.stdout) as { readonly tools: readonly Data[] };
    expect(tools.map(({ name }) => name).slice(0, 3)).toEqual(['instances', 'send', 'read']);
    const call = ['--method', 'tools/call', '--tool-name', 'instances', '--tool-arg', 'match=WORK'];
    const { code, stdout } = await inspect(...call);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      content: [{ type: 'text', text: expect.stringContaining('worker: idle') as string }],
      structuredContent: { instances: [{ name: 'worker', state: 'idle', directory: opencode.directory }] },
    });
    await until('the server to end with it', async () => (await processesIn(temp.tmp)).length === 0);
  });
});

describe.skipIf([NEWEST_NODE, SUPERGATEWAY].some(isMissing))('the server behind an MCP gateway', () => {
  let url: URL;

  beforeAll(async () => {
    const port = await freePort();
    url = new URL(`http://127.0.0.1:${port}/mcp`);
    const command = serverCommand(stage).map((word) => JSON.stringify(word));
    const options = ['--outputTransport', 'streamableHttp', '--stateful', '--port', String(port)];
    const gateway = launch(['--import', LOOPBACK_ONLY, SUPERGATEWAY, '--stdio', command.join(' '), ...options]);
    let log = '';
    const listening = new Promise<void>((resolve) => {
      for (const stream of [gateway.stdout, gateway.stderr]) {
        stream?.setEncoding('utf8').on('data', (text: string) => {
          log += text;
          if (log.includes('Listening on port')) resolve();
        });
      }
    });
    await within(listening, () => `the gateway to listen: ${log}`);
  });

  async function connect(): Promise<Client> {
    const transport = new StreamableHTTPClientTransport(url);
    const client = new Client(CLAUDE_CODE.clientInfo);
    await client.connect(transport);
    onTestFinished(async () => {
      await transport.terminateSession();
      await client.close();
    });
    // From here on the client holds each result against the listed schema.
    await client.listTools();
    return client;
  }

  const call = async (client: Client, name: string, args: Data = {}): Promise<Data> =>
    (await client.callTool({ name, arguments: args })).structuredContent as Data;

  test('a send streams its answer as progress and returns it whole', async () => {
    const client = await connect();
    const instances = [{ name: 'worker', state: 'idle', version: opencode.version }];
    expect(await call(client, 'instances')).toMatchObject({ instances });
    const message = 'slow 8 60: through the gateway';
    const progress: string[] = [];
    const { structuredContent } = await client.callTool(
      { name: 'send', arguments: { instance: 'worker', message } },
      undefined,
      { onprogress: ({ message: text }) => progress.push(text ?? ''), resetTimeoutOnProgress: true },
    );
    expect(structuredContent).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
    expect(progress.length).toBeGreaterThan(1);
    // What comes right before the result, a client may lose.
    expect(expectedReply(message).startsWith(progress.join(''))).toBe(true);
  });

  test('a cancelled send is no longer followed, and its turn continues', async () => {
    const client = await connect();
    const { session } = await call(client, 'create_session', { instance: 'worker', title: 'cancelled' });
    const { id: session_id } = session as { readonly id: string };
    const message = 'gate-mid gateway: before, |and after';
    const caller = new AbortController();
    const sending = client.callTool(
      { name: 'send', arguments: { instance: 'worker', session_id, message } },
      undefined,
      { signal: caller.signal },
    );
    await stage.model.waitForGate('gateway');
    expect(proxy.openStreams).toBe(1);
    caller.abort();
    await expect(sending).rejects.toThrow();
    // The cancellation has come through the gateway.
    await until('the server to stop following', () => proxy.openStreams === 0);
    expect(await call(client, 'get_status', { instance: 'worker' })).toMatchObject({
      state: 'busy',
      sessions: [{ id: session_id }],
    });
    stage.model.release('gateway');
    const whole = await until('the turn to end', async () => {
      const read = await call(client, 'read', { instance: 'worker', session_id });
      return (read['session'] as Data)['state'] === 'idle' ? read : undefined;
    });
    expect(whole).toMatchObject({ messages: [{ text: message }, { text: expectedReply(message), state: 'complete' }] });
    expect(stage.model.turns(message)).toBe(1);
  });
});

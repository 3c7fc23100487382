import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile, readlink } from 'node:fs/promises';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { NEWEST_NODE } from '../mcp/raw-server.ts';
import { startFaultProxy, type FaultProxy } from '../rig/fault-proxy.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { expectedReply } from '../rig/model-script.ts';
import type { Opencode } from '../rig/opencode.ts';
import { isMissing } from '../rig/opencode-binaries.ts';
import { freePort } from '../rig/ports.ts';
import { endProcessesIn, processesIn } from '../rig/processes.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { openStage, type Stage } from './stage.ts';

const component = (path: string): string =>
  fileURLToPath(new URL(`../components/node_modules/${path}`, import.meta.url));
const INSPECTOR = component('@modelcontextprotocol/inspector/clients/launcher/build/index.js');
const SUPERGATEWAY = component('supergateway/dist/index.js');
const CONFORMANCE = component('@modelcontextprotocol/conformance/dist/index.js');

/** It listens on every interface and has no option for it; what it serves drives a shell. */
const LOOPBACK_ONLY = `data:text/javascript,${encodeURIComponent(`
import net from 'node:net';
const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, ...rest) {
  return typeof port === 'number' ? listen.call(this, { port, host: '127.0.0.1' }, ...rest) : listen.call(this, port, ...rest);
};`)}`;

type Data = Readonly<Record<string, unknown>>;

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

/** A busy machine needs longer than a person would wait for a probe. */
function serverCommand(): string[] {
  const settings = ['--registry-dir', stage.registry.path, '--health-timeout-ms', '15000', '--mdns-interfaces', 'none'];
  return [process.execPath, SERVER_SCRIPT, ...settings];
}

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
  const inspect = (...args: string[]): Promise<Ended> => run([INSPECTOR, '--cli', ...serverCommand(), ...args]);

  test('finds nothing to object to in tools/list, strictly', async () => {
    const { code, stdout, stderr } = await inspect('--method', 'tools/list', '--strict');
    expect([code, stderr]).toEqual([0, '']);
    const { tools } = JSON.parse(stdout) as { readonly tools: readonly { readonly name: string }[] };
    expect(tools.map(({ name }) => name).slice(0, 3)).toEqual(['instances', 'send', 'read']);
    await until('the server to end with it', async () => (await processesIn(temp.tmp)).length === 0);
  });

  test('calls a tool and shows its result', async () => {
    const { code, stdout } = await inspect(
      '--method',
      'tools/call',
      '--tool-name',
      'instances',
      '--tool-arg',
      'match=WORK',
    );
    expect(code).toBe(0);
    const result = JSON.parse(stdout) as { readonly content: readonly Data[]; readonly structuredContent: Data };
    expect(result.structuredContent).toMatchObject({
      instances: [{ name: 'worker', state: 'idle', directory: opencode.directory }],
    });
    expect(result.content).toMatchObject([{ type: 'text', text: expect.stringContaining('worker: idle') as string }]);
    await until('the server to end with it', async () => (await processesIn(temp.tmp)).length === 0);
  });
});

describe.skipIf([NEWEST_NODE, SUPERGATEWAY].some(isMissing))('the server behind an MCP gateway', () => {
  let url: URL;

  beforeAll(async () => {
    const port = await freePort();
    url = new URL(`http://127.0.0.1:${port}/mcp`);
    const server = serverCommand().map((word) => JSON.stringify(word));
    const gateway = launch([
      '--import',
      LOOPBACK_ONLY,
      SUPERGATEWAY,
      '--stdio',
      server.join(' '),
      '--outputTransport',
      'streamableHttp',
      '--stateful',
      '--port',
      String(port),
    ]);
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
    // One for which a send waits as long as a cold opencode on a busy machine may need.
    const client = new Client({ name: 'claude-code', version: '2.1.329' });
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

  test('instances', async () => {
    const client = await connect();
    expect(await call(client, 'instances')).toMatchObject({
      instances: [{ name: 'worker', state: 'idle', version: opencode.version }],
    });
  });

  test('a send streams its answer as progress and returns it whole', async () => {
    const client = await connect();
    const message = 'slow 8 60: through the gateway';
    const progress: string[] = [];
    const { structuredContent } = await client.callTool(
      { name: 'send', arguments: { instance: 'worker', message } },
      undefined,
      {
        onprogress: ({ message: text }) => progress.push(text ?? ''),
        resetTimeoutOnProgress: true,
      },
    );
    expect(structuredContent).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
    expect(progress.length).toBeGreaterThan(1);
    // What comes right before the result, a client may lose.
    expect(expectedReply(message).startsWith(progress.join(''))).toBe(true);
  });

  test('a send that is cancelled is no longer followed, and what it began goes on', async () => {
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
    // The cancel has come through the gateway: the server has let go of the event stream.
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

  test('clients have a server each, which ends with its session', async () => {
    await until('earlier servers to end', async () => (await serverProcesses()).length === 0);
    const [one, other] = [await connect(), await connect()];
    expect(await serverProcesses()).toHaveLength(2);
    for (const client of [one, other]) {
      await (client.transport as unknown as StreamableHTTPClientTransport).terminateSession();
    }
    await until('their servers to end', async () => (await serverProcesses()).length === 0);
  });

  /** The gateway itself runs on another Node. */
  async function serverProcesses(): Promise<number[]> {
    const found = await Promise.all(
      (await processesIn(temp.tmp)).map(async (pid) => {
        const [program, args] = await Promise.all([
          readlink(`/proc/${pid}/exe`).catch(() => ''),
          readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
        ]);
        return program.endsWith('/node') && args.split('\0')[1] === SERVER_SCRIPT ? [pid] : [];
      }),
    );
    return found.flat();
  }

  describe.skipIf(isMissing(CONFORMANCE))('in the conformance suite of the protocol', () => {
    // The others call tools, prompts and resources of the suite's own reference server, or are about the gateway.
    test.each([
      'server-initialize',
      'ping',
      'tools-list',
      'resources-list',
      'prompts-list',
      'logging-set-level',
      'server-sse-multiple-streams',
    ])('%s', async (scenario) => {
      const args = ['server', '--url', url.href, '--scenario', scenario, '--spec-version', '2025-11-25'];
      const { code, stdout, stderr } = await run([CONFORMANCE, ...args]);
      expect(code, stdout + stderr).toBe(0);
      expect(stdout).toMatch(/Passed: [1-9]\d*\/\d+, 0 failed/);
    });
  });
});

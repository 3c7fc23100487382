import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { JSONRPCMessageSchema } from '@modelcontextprotocol/sdk/types.js';
import { expect, onTestFinished, test } from 'vitest';

import packageJson from '../../package.json' with { type: 'json' };
import { listTool } from '../../src/mcp/tools/listing.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { FAKE_ROUTES } from '../rig/fake/fake-http.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { until, within } from '../rig/wait.ts';
import { HANDSHAKE, startRawServer, type RawServer, type RawServerOptions } from './raw-server.ts';
import { openWorker, type WorkerScene } from './worker.ts';

/** Long enough that a probe still hangs when the server ends. */
const LONG_DEADLINE = ['--health-timeout-ms', '60000'];

const TWO_PROCESSES = ['/bin/sh', '-c', 'sleep 1000 & sleep 1000'];

function startServer(options: RawServerOptions = {}): RawServer {
  const server = startRawServer(options);
  onTestFinished(() => server[Symbol.asyncDispose]());
  return server;
}

async function openScene(): Promise<WorkerScene> {
  const scene = await openWorker();
  onTestFinished(() => scene.close());
  return scene;
}

const call = (id: number, name: string, args: object, progressToken = id): object => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args, _meta: { progressToken } },
});
const ping = (id: number): object => ({ jsonrpc: '2.0', id, method: 'ping' });

const ENDINGS: readonly (readonly [string, (server: RawServer) => void])[] = [
  ['its input ends', (server) => server.endInput()],
  ['it gets SIGTERM', (server) => server.kill('SIGTERM')],
  ['it gets SIGINT', (server) => server.kill('SIGINT')],
  ['it gets SIGHUP', (server) => server.kill('SIGHUP')],
  [
    'its output is closed',
    (server) => {
      server.closeOutput();
      server.write(ping(99));
    },
  ],
  // The server does not answer such a message, and reads no later ones.
  [
    'a message is longer than the 10 MiB that the transport takes',
    (server) => server.write(call(99, 'read', { instance: 'x'.repeat(11 * 1024 * 1024) })),
  ],
];
test.each(ENDINGS)('ends while it works, and leaves no process or connection, when %s', async (_, end) => {
  const { temp, registry, worker } = await openScene();
  const config = join(temp.path, 'config.json');
  const password = { command: TWO_PROCESSES };
  await writeFile(config, JSON.stringify({ credentials: [{ name: 'vault', password }] }), { mode: 0o600 });
  await using silent = await startFakeOpencode();
  await using vault = await startFakeOpencode();
  for (const route of FAKE_ROUTES) silent.override(route, { kind: 'hang' });
  const server = startServer({ args: ['--registry-dir', registry.path, '--config', config, ...LONG_DEADLINE] });
  server.write(...HANDSHAKE, call(1, 'send', { instance: 'worker', message: 'runs until it is ended' }));
  await until('the turn to be followed', () => worker.state.prompts.length === 1 && worker.openStreams === 1);
  // Registered after the turn, since the first round of the turn would wait for them.
  await registry.add({ name: 'silent', port: silent.port });
  await registry.add({ name: 'vault', port: vault.port });
  await until('a probe to hang', () => silent.load.current > 0);
  await until('the password command to run', async () => (await server.processes()).length >= 3);

  end(server);
  expect(await within(server.exited, () => `the exit; stderr: ${server.stderr}`)).toEqual({
    code: 0,
    signal: null,
  });
  await until('its child processes to end', async () => (await server.processes()).length === 0);
  await until('its connections to end', () => worker.openStreams === 0 && silent.load.current === 0);
  for (const line of server.stdout) JSONRPCMessageSchema.parse(JSON.parse(line));
  expect(server.rest).toBe('');
  // The turn is no longer followed, but not stopped.
  expect(worker.count('POST /session/:id/abort')).toBe(0);
});

const LIST = { jsonrpc: '2.0', id: 1, method: 'tools/list' };
test.each<[string, readonly (object | string)[], readonly number[]]>([
  ['no message', [], []],
  ['requests', [...HANDSHAKE, LIST], [0, 1]],
  ['half a message', [...HANDSHAKE, '{"jsonrpc":"2.0","id":1,"method":"tools/li'], [0]],
])('answers %s, and exits at the end of its input', async (_, messages, ids) => {
  const server = startServer();
  server.write(...messages);
  server.endInput();
  expect(await within(server.exited, 'the exit')).toEqual({ code: 0, signal: null });
  expect(server.stdout.map((line) => (JSON.parse(line) as { id: number }).id)).toEqual(ids);
  expect(server.rest).toBe('');
});

test('an invalid message is logged and skipped; later ones are answered', async () => {
  const server = startServer();
  const garbage = [
    'hello\n',
    '\n',
    '{"jsonrpc":"2.0"\n',
    '[]\n',
    'null\n',
    '{"jsonrpc":"1.0","id":7}\n',
    '\u0000\uffff\u001b[2J\n',
    '{"id":8,"method":5}\n',
  ];
  server.write(...garbage, ...HANDSHAKE, ...garbage, ping(1));
  expect(await server.answerTo(1)).toMatchObject({ result: {} });
  expect(server.stdout).toHaveLength(2);
  server.endInput();
  expect(await within(server.exited, 'the exit')).toEqual({ code: 0, signal: null });
  expect(server.stderr.split('\n').filter((line) => line.startsWith('warn MCP: '))).toHaveLength(garbage.length * 2);
  // oxlint-disable-next-line no-control-regex -- none may reach a terminal
  expect(server.stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
});

test('a message of 9 MB gets a short answer', async () => {
  const server = startServer();
  server.write(...HANDSHAKE, call(1, 'read', { instance: 'x'.repeat(9 * 1024 * 1024) }), ping(2));
  expect(await server.answerTo(1)).toMatchObject({ result: { isError: true } });
  expect(await server.answerTo(2)).toMatchObject({ result: {} });
  expect(server.stdout.join('\n').length).toBeLessThan(10_000);
});

test('lists the tools of the source before it contacts an endpoint, and then starts discovery', async () => {
  const { worker, args } = await openScene();
  for (const route of FAKE_ROUTES) worker.override(route, { kind: 'hang' });
  const requests = (): number => FAKE_ROUTES.reduce((sum, route) => sum + worker.count(route), 0);
  const server = startServer({ args });
  // In one piece, so that discovery cannot start in between.
  server.write(...HANDSHAKE, LIST);
  const { result } = await server.answerTo(1);
  expect(requests()).toBe(0);
  expect(result).toEqual({ tools: TOOLS.map((tool) => listTool(tool)) });
  await until('a request of discovery', () => requests() > 0);
});

test('lists only the tools that flags and environment select, and the others cannot be called', async () => {
  const { worker, args } = await openScene();
  const server = startServer({ args: [...args, '--read-only'], env: { OPENCODE_MCP_TOOLSETS: 'core' } });
  server.write(
    ...HANDSHAKE,
    LIST,
    call(2, 'read_file', { instance: 'worker', path: 'x' }),
    call(3, 'send', { instance: 'worker', message: 'x' }),
  );
  const names = ['instances', 'read', 'wait'];
  expect((await server.answerTo(1)).result).toMatchObject({ tools: names.map((name) => ({ name })) });
  for (const id of [2, 3])
    expect((await server.answerTo(id)).error?.message).toContain(`there are: ${names.join(', ')}`);
  expect(worker.count('POST /session')).toBe(0);
});

// `launch.test.ts` has the long flags and the help of a command.
test.each<[string, readonly string[], Readonly<Record<string, string>>, number, RegExp, RegExp]>([
  ['-v', ['-v'], {}, 0, new RegExp(`^${packageJson.version}\n$`), /^$/],
  ['-h', ['-h'], {}, 0, /help settings/, /^$/],
  ['an unknown source', [], { TRANSPORT: 'pigeon' }, 2, /^$/, /^\S+ TRANSPORT: expected .*, got "pigeon"\n$/],
  ['an unknown command', ['sreve'], {}, 2, /^$/, /unknown command "sreve", see opencode-mcp help/],
  ['an extra argument', ['serve', 'now'], {}, 2, /^$/, /unexpected argument "now"/],
  [
    'invalid settings',
    ['--interval-ms', 'x'],
    { SEND_TIMEOUT_MS: 'x' },
    2,
    /^$/,
    /^.*--interval-ms.*\n.*SEND_TIMEOUT_MS.*\n$/,
  ],
])('%s on the command line has the expected exit code and output', async (_, args, env, code, stdout, stderr) => {
  const server = startServer({ args, env });
  const exit = await within(server.exited, () => `the exit of ${args.join(' ')}; stderr: ${server.stderr}`);
  expect(exit).toEqual({ code, signal: null });
  expect([...server.stdout, server.rest].join('\n')).toMatch(stdout);
  expect(server.stderr).toMatch(stderr);
});

import { execFile } from 'node:child_process';
import { mkdir, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { JSONRPCMessageSchema } from '@modelcontextprotocol/sdk/types.js';
import { describe, expect, onTestFinished, test } from 'vitest';

import packageJson from '../../package.json' with { type: 'json' };
import { listTool } from '../../src/mcp/tools/listing.ts';
import { TOOLS } from '../../src/mcp/tools/tools.ts';
import { FAKE_ROUTES } from '../rig/fake-http.ts';
import { startFakeOpencode, type FakeOpencode, type FakeOptions } from '../rig/fake-opencode.ts';
import { startFakes } from '../rig/fakes.ts';
import { startMcpChild } from '../rig/mcp-child.ts';
import { openRegistry, type Registry } from '../rig/registry.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { HANDSHAKE, startRawServer, type RawServer, type RawServerOptions } from './raw-server.ts';

const run = promisify(execFile);

/** Lets a probe hang for as long, so that one hangs at the end. */
const LONG_DEADLINE = ['--health-timeout-ms', '60000'];

const TWO_PROCESSES = ['/bin/sh', '-c', 'sleep 1000 & sleep 1000'];

describe('the server', () => {
  async function start(options: RawServerOptions = {}): Promise<RawServer> {
    const server = startRawServer(options);
    onTestFinished(() => server[Symbol.asyncDispose]());
    return server;
  }

  async function fake(options: FakeOptions = {}): Promise<FakeOpencode> {
    const opencode = await startFakeOpencode(options);
    onTestFinished(() => opencode.close());
    return opencode;
  }

  async function scene(): Promise<{ readonly temp: TempDir; readonly registry: Registry }> {
    const temp = tempDir('opencode-mcp-stdio');
    onTestFinished(() => temp.close());
    return { temp, registry: await openRegistry(join(temp.path, 'registry')) };
  }

  const call = (id: number, name: string, args: object, progressToken = id): object => ({
    jsonrpc: '2.0',
    id,
    method: 'tools/call',
    params: { name, arguments: args, _meta: { progressToken } },
  });
  const ping = (id: number): object => ({ jsonrpc: '2.0', id, method: 'ping' });

  test('standard output has only protocol messages: with many calls, failing calls, hostile registrations, the whole log', async () => {
    const { temp, registry } = await scene();
    const opencode = await fake({ reply: (text) => `re: ${text}\nsecond line\u2028third`.repeat(200) });
    await registry.add({ name: 'worker', port: opencode.port });
    await makeHostile(registry, temp.path, opencode.port);
    await using server = await startMcpChild({
      args: ['--registry-dir', registry.path, '--log-level', 'debug', '--health-timeout-ms', '15000'],
    });
    const { result } = await server.call('instances');
    // The hostile registrations were read: most became notes.
    expect((result.structuredContent as { notes: string[] }).notes.length).toBeGreaterThan(5);

    const sessions = Array.from({ length: 20 }, (_, index) =>
      opencode.addSession({ title: `\u001b[31mred\n${index}` }),
    );
    const calls = sessions.flatMap(({ id: session_id }) => [
      server.call('send', { instance: 'worker', session_id, message: `to ${session_id}` }),
      server.call('read', { instance: 'worker', session_id }),
      server.call('instances'),
      server.call('refresh_instances'),
      server.call('list_sessions', { instance: 'worker' }),
      server.call('read', { instance: '\u001b]0;nobody\u0007\n' }),
      server.call('send', { instance: 'worker', mesage: 'x' }),
      server.call('no such tool\n'),
    ]);
    const outcomes = await Promise.allSettled(calls);
    const told = outcomes.map((one) =>
      one.status === 'rejected' ? 'rejected' : one.value.result.isError === true ? 'error' : 'ok',
    );
    expect([told.filter((one) => one === 'ok').length, told.filter((one) => one === 'error').length]).toEqual([
      100, 40,
    ]);

    const answers = server.stdout.flatMap((line) => (JSON.parse(line) as { id?: number }).id ?? []);
    expect(answers).toHaveLength(calls.length + 2);
    expect(new Set(answers).size).toBe(answers.length);
    expect(server.strayOutput).toEqual([]);
    expect(server.stderr.length).toBeGreaterThan(0);
    server.closeStdin();
    expect(await within(server.exited, 'the exit')).toEqual({ code: 0, signal: null });
    expect(server.strayOutput).toEqual([]);
  });

  const ENDINGS: readonly (readonly [string, (server: RawServer) => void])[] = [
    ['its input ends', (server) => server.endInput()],
    ['SIGTERM comes', (server) => server.kill('SIGTERM')],
    ['SIGINT comes', (server) => server.kill('SIGINT')],
    ['SIGHUP comes', (server) => server.kill('SIGHUP')],
    [
      'nobody reads its output any more',
      (server) => {
        server.closeOutput();
        server.write(ping(99));
      },
    ],
    // It is not answered, and later messages are not read.
    [
      'a message is longer than the 10 MiB that the transport takes',
      (server) => server.write(call(99, 'read', { instance: 'x'.repeat(11 * 1024 * 1024) })),
    ],
  ];
  test.each(ENDINGS)('ends by itself and leaves nothing behind, in the middle of work, when %s', async (_, end) => {
    const { temp, registry } = await scene();
    const config = join(temp.path, 'config.json');
    const password = { command: TWO_PROCESSES };
    await writeFile(config, JSON.stringify({ credentials: [{ name: 'vault', password }] }), { mode: 0o600 });
    const [working, silent, vault] = [await fake(), await fake(), await fake()];
    for (const route of FAKE_ROUTES) silent.override(route, { kind: 'hang' });
    await registry.add({ name: 'working', port: working.port });
    const server = await start({ args: ['--registry-dir', registry.path, '--config', config, ...LONG_DEADLINE] });
    server.write(...HANDSHAKE, call(1, 'send', { instance: 'working', message: 'runs until it is ended' }));
    await until(
      'the turn to run and be followed',
      () => working.state.prompts.length === 1 && working.openStreams === 1,
    );
    // After the turn, whose first round would wait for them.
    await registry.add({ name: 'silent', port: silent.port });
    await registry.add({ name: 'vault', port: vault.port });
    await until('a probe to hang', () => silent.load.current > 0);
    await until('the password command to run', async () => (await server.processes()).length >= 3);

    end(server);
    expect(await within(server.exited, () => `the exit; stderr: ${server.stderr}`)).toEqual({
      code: 0,
      signal: null,
    });
    await until('everything that it started to end', async () => (await server.processes()).length === 0);
    await until('its connections to end', () => working.openStreams === 0 && silent.load.current === 0);
    for (const line of server.stdout) JSONRPCMessageSchema.parse(JSON.parse(line));
    expect(server.rest).toBe('');
    // The turn is no longer followed, but not stopped.
    expect(working.count('POST /session/:id/abort')).toBe(0);
  });

  test('ends when its input ends, even if there was no request', async () => {
    const server = await start();
    server.endInput();
    expect(await within(server.exited, 'the exit')).toEqual({ code: 0, signal: null });
    expect([server.stdout, server.rest]).toEqual([[], '']);
  });

  test('an invalid message is logged and skipped; later ones are answered', async () => {
    const server = await start();
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
    const { registry } = await scene();
    const server = await start({ args: ['--registry-dir', registry.path] });
    server.write(...HANDSHAKE, call(1, 'read', { instance: 'x'.repeat(9 * 1024 * 1024) }), ping(2));
    expect(await server.answerTo(1)).toMatchObject({ result: { isError: true } });
    expect(await server.answerTo(2)).toMatchObject({ result: {} });
    expect(server.stdout.join('\n').length).toBeLessThan(10_000);
  });

  test('requests just before the end of input are answered', async () => {
    const server = await start();
    server.write(...HANDSHAKE, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    server.endInput();
    expect(await within(server.exited, 'the exit')).toEqual({ code: 0, signal: null });
    expect(server.stdout.map((line) => (JSON.parse(line) as { id: number }).id)).toEqual([0, 1]);
  });

  test('half a message before the end of input: no answer, and a normal exit', async () => {
    const server = await start();
    server.write(...HANDSHAKE);
    await server.answerTo(0);
    server.write('{"jsonrpc":"2.0","id":1,"method":"tools/li');
    server.endInput();
    expect(await within(server.exited, 'the exit')).toEqual({ code: 0, signal: null });
    expect([server.stdout.length, server.rest]).toEqual([1, '']);
  });

  test('the build lists the same tools as the source', async () => {
    const server = await start();
    server.write(...HANDSHAKE, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    const { result } = await server.answerTo(1);
    expect(result).toEqual({ tools: TOOLS.map((tool) => listTool(tool)) });
  });

  const SWITCHES: readonly (readonly [string, RawServerOptions, readonly string[]])[] = [
    ['--toolsets core', { args: ['--toolsets', 'core'] }, ['instances', 'send', 'read', 'respond', 'wait']],
    ['OPENCODE_MCP_TOOLSETS', { env: { OPENCODE_MCP_TOOLSETS: 'instances' } }, ['list_instances', 'refresh_instances']],
    ['--read-only', { args: ['--read-only', '--toolsets=core'] }, ['instances', 'read', 'wait']],
  ];
  test.each(SWITCHES)('%s: only these tools are listed, and the others cannot be called', async (_, options, names) => {
    const { registry } = await scene();
    const opencode = await fake({ reply: (text) => text });
    await registry.add({ name: 'worker', port: opencode.port });
    const server = await start({ ...options, env: { RELAY_REGISTRY_DIR: registry.path, ...options.env } });
    server.write(...HANDSHAKE, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    const { result } = await server.answerTo(1);
    expect(result).toMatchObject({ tools: names.map((name) => ({ name })) });
    server.write(
      call(2, 'send_message', { instance: 'worker', session_id: 'x', message: 'x' }),
      call(3, 'create_session', { instance: 'worker' }),
    );
    for (const id of [2, 3]) {
      expect((await server.answerTo(id)).error?.message).toContain(`there are: ${names.join(', ')}`);
    }
    expect(opencode.count('POST /session')).toBe(0);
  });

  test('tools/list is answered before any of 1,000 silent endpoints gets a request', async () => {
    const { registry } = await scene();
    await using fakes = await startFakes(1000, 1000);
    const asked = (): number =>
      fakes.all.reduce((sum, one) => sum + one.count('GET /global/health') + one.count('GET /path'), 0);
    for (const [index, { port, directory }] of fakes.all.entries())
      await registry.add({ name: `silent-${index}`, port, cwd: directory });
    const server = await start({ args: ['--registry-dir', registry.path] });
    // In one piece, so that discovery cannot start in between.
    server.write(...HANDSHAKE, { jsonrpc: '2.0', id: 1, method: 'tools/list' });
    const { result } = await server.answerTo(1);
    expect(asked()).toBe(0);
    expect(result).toMatchObject({
      tools: expect.arrayContaining([expect.objectContaining({ name: 'send' })]) as unknown,
    });
    await until('discovery to begin by itself', () => asked() > 0);
  });

  describe('on the command line', () => {
    async function end(args: readonly string[], options: Omit<RawServerOptions, 'args'> = {}): Promise<RawServer> {
      const server = await start({ args, ...options });
      await within(server.exited, () => `the exit of ${args.join(' ')}; stderr: ${server.stderr}`);
      return server;
    }

    const output = ({ stdout, rest }: RawServer): string => [...stdout, rest].join('\n');

    test.each(['--version', '-v'])('%s prints the version of the package', async (flag) => {
      const server = await end([flag]);
      expect([await server.exited, output(server)]).toEqual([{ code: 0, signal: null }, `${packageJson.version}\n`]);
    });

    test.each(['--help', '-h', 'help'])('%s names every command', async (flag) => {
      const server = await end([flag]);
      expect(await server.exited).toEqual({ code: 0, signal: null });
      for (const name of ['list', 'send NAME', 'init', 'node', 'help settings', 'Exit codes'])
        expect(output(server)).toContain(name);
      expect(server.stderr).toBe('');
    });

    test.each<[string, readonly string[], Readonly<Record<string, string>>, RegExp]>([
      [
        'an unknown source',
        [],
        { TRANSPORT: 'carrier-pigeon' },
        /^\S+ TRANSPORT: expected .*, got "carrier-pigeon"\n$/,
      ],
      ['an unknown command', ['sreve'], {}, /unknown command "sreve", see opencode-mcp help/],
      ['an extra argument', ['serve', 'now'], {}, /unexpected argument "now"/],
      [
        'several invalid settings, one line each',
        ['--interval-ms', 'soon'],
        { SEND_TIMEOUT_MS: 'late' },
        /^.*--interval-ms.*\n.*SEND_TIMEOUT_MS.*\n$/,
      ],
    ])('%s: exit code 2, and a message on standard error', async (_, args, env, expected) => {
      const server = await end(args, { env });
      expect(await server.exited).toEqual({ code: 2, signal: null });
      expect(server.stderr).toMatch(expected);
      expect(output(server)).toBe('');
    });
  });
});

/** Registrations as a careless or malicious person could write them. */
async function makeHostile(registry: Registry, folder: string, port: number): Promise<void> {
  const names = [
    '\u001b]0;title\u0007\u001b[2J',
    'two\nlines\r\nof name',
    '../../etc/passwd',
    'n'.repeat(10_000),
    '\u202egnirts',
    '\u0000',
    '',
  ];
  for (const [index, name] of names.entries())
    await registry.add({ name, port, cwd: `/home/user/${index}\n\u001b[31m` }, { file: `hostile-${index}.json` });
  const raw = [
    '{"name":"half',
    'no json',
    '',
    '[]',
    'null',
    '5',
    '\u0000\u0000',
    '{"name":5,"port":"x"}',
    `{"name":"p","port":99999}`,
    `{"name":"p","port":0}`,
  ];
  for (const [index, content] of raw.entries()) await registry.writeRaw(`raw-${index}.json`, content);
  await mkdir(join(registry.path, 'folder.json'));
  await symlink('/etc/passwd', join(registry.path, 'link.json'));
  await run('mkfifo', [join(registry.path, 'pipe.json')]);
  await truncate(await registry.writeRaw('large.json', '{'), 30_000_000);
  await writeFile(join(registry.path, 'line\nfeed\u001b[31m.json'), folder);
}

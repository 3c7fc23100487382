import { lstat, mkdir, readdir, writeFile } from 'node:fs/promises';
import { request as requestHttp } from 'node:http';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { INSTANCE_PREFIX } from '../../src/discovery/tailnet/peer-list.ts';
import { PAGE_PREFIX } from '../../src/page/contract.ts';
import { SELF } from '../node/stage.ts';
import { tailscaled } from '../node/tailscaled.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { freePort } from '../rig/ports.ts';
import { openRegistry } from '../rig/registry.ts';
import { runShell, shellEnv, type ShellRun } from '../rig/programs/shell-command.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

async function openMachine() {
  const temp = tempDir('opencode-mcp-revoke');
  const fake = await startFakeOpencode({ password: 'pa55word', heartbeatMs: 60_000 });
  const registry = await openRegistry(join(temp.path, 'registry'));
  await registry.add({ name: 'one', port: fake.port, cwd: fake.directory, id: 'one' }, { password: 'pa55word' });
  const socketPath = join(temp.path, 'tailscaled.sock');
  await tailscaled(socketPath);
  const port = await freePort();
  const env = {
    ...shellEnv(temp.path, registry.path),
    TMPDIR: temp.tmp,
    TAILSCALE_SOCKET: socketPath,
    OPENCODE_NODE_PORT: String(port),
  };
  const run = (...args: readonly string[]): ShellRun => {
    const shell = runShell(args, env);
    onTestFinished(() => shell.kill('SIGKILL'));
    return shell;
  };
  return {
    port,
    fake,
    temp,
    stateDir: join(temp.path, '.local/state/opencode-mcp'),
    run,
    /** Runs a command to its end; returns its exit code and output. */
    async runToEnd(...args: readonly string[]) {
      const shell = run(...args);
      const code = await within(shell.ended, `${args.join(' ')} to end`);
      return { code, out: shell.stdout(), err: shell.stderr() };
    },
    async [Symbol.asyncDispose]() {
      await fake.close();
      await temp.close();
    },
  };
}

/** Opens a stream, and keeps the last 100,000 characters of its text. */
function openStream(url: string, headers: Readonly<Record<string, string>>) {
  const { hostname, port, pathname, search } = new URL(url);
  const host = hostname.endsWith('.localhost') ? '127.0.0.1' : hostname;
  const request = requestHttp({ host, port, path: pathname + search, headers, agent: false });
  const stream = { request, status: 0, text: '', isClosed: false };
  const close = (): void => void (stream.isClosed = true);
  request.once('error', close);
  request.once('response', (response) => {
    stream.status = response.statusCode ?? 0;
    response.on('error', () => {}).once('close', close);
    response.setEncoding('utf8').on('data', (piece: string) => (stream.text = (stream.text + piece).slice(-100_000)));
  });
  request.end();
  onTestFinished(() => void request.destroy());
  return stream;
}

const PAGE = { 'x-opencode-mcp-page': '1', 'user-agent': 'Mozilla/5.0' };

test('--revoke immediately ends every stream of the node service and of dashboards, and --allow permits serving again', async () => {
  await using machine = await openMachine();
  const { port, fake, run, runToEnd, stateDir } = machine;
  const session = fake.addSession({ title: 'Fix the build' });
  fake.state.begin(session.id, 'go on');
  const at = `http://${SELF}:${port}`;
  const node = run('node');
  await until('the node service', () => node.stderr().includes('listening'));
  const dashboard = run('dashboard', '--print');
  await dashboard.shows(/localhost:\d+\S+/);
  const openCommand = run('open', 'one', '--print');
  await openCommand.shows(/localhost:\d+\S+/);
  const entranceUrl = dashboard.stdout().trim();
  const { host, origin } = new URL(entranceUrl);
  const cookie = await new Promise<string>((resolve) => {
    const { request } = openStream(entranceUrl, { host });
    request.once('response', ({ headers }) => resolve(headers['set-cookie']?.[0]?.split(';', 1)[0] ?? ''));
  });
  const browser = { ...PAGE, host, cookie };
  const events = `${at}${INSTANCE_PREFIX}one/event`;
  const [readStream, pausedStream] = [openStream(events, {}), openStream(events, {})];
  const streams = [
    readStream,
    pausedStream,
    openStream(`${at}${PAGE_PREFIX}v1/fleet`, PAGE),
    openStream(`${at}${PAGE_PREFIX}v1/session?instance=one&session=${session.id}`, PAGE),
    openStream(`${origin}${PAGE_PREFIX}v1/fleet`, browser),
  ];
  await until('the streams', () => streams.every(({ status, text }) => status === 200 && text !== ''));
  pausedStream.request.socket?.pause();
  // The flood keeps the service busy with streams all the time.
  let floodEnds = false;
  const noise = `data: ${JSON.stringify({ type: 'noise', properties: { text: 'x'.repeat(1_000) } })}\n\n`;
  const flood = fake.flood(() => (floodEnds ? undefined : noise));
  await until('the flood', () => readStream.text.length > 90_000);

  const revoked = await runToEnd('node', '--revoke');
  expect(revoked).toMatchObject({ code: 0, err: '' });
  expect(revoked.out).toContain('cut every connection now');
  expect(revoked.out).toContain('tunnel of an opencode-connected');
  // A paused reader cannot see the end.
  pausedStream.request.socket?.resume();
  await until('every stream to end', () => streams.every(({ isClosed }) => isClosed));
  floodEnds = true;
  await flood;
  await until('the listener to end', () =>
    fetch(`${at}/opencode-mcp/v1/instances`).then(
      () => false,
      () => true,
    ),
  );
  expect(await within(dashboard.ended, 'the dashboard to end')).toBe(1);
  expect(await within(openCommand.ended, 'open to end')).toBe(1);
  for (const command of [dashboard, openCommand]) expect(command.stderr()).toContain('opencode-mcp node --allow');
  expect((await lstat(join(stateDir, 'node-revoked'))).mode & 0o777).toBe(0o600);
  expect((await readdir(stateDir)).filter((name) => name.endsWith('.tmp'))).toEqual([]);

  // A dashboard that starts now serves nothing either.
  const second = await runToEnd('dashboard', '--print');
  expect(second).toMatchObject({ code: 1, out: '', err: expect.stringContaining('opencode-mcp node --allow') });
  expect(node.stderr()).toContain('revoked, so nothing is served; to serve again, run: opencode-mcp node --allow');

  const before = node.stderr().length;
  expect(await runToEnd('node', '--allow')).toMatchObject({ code: 0, out: expect.stringContaining('allowed') });
  await until('the node service again', () => node.stderr().slice(before).includes('listening'));
  const again = openStream(`${at}${PAGE_PREFIX}v1/fleet`, PAGE);
  await until('the page again', () => again.text.includes('"one"'));
  expect(await runToEnd('node', '--allow')).toMatchObject({ code: 0, out: 'nothing was revoked.\n' });
  node.kill('SIGTERM');
  expect(await within(node.ended, 'the node service to end')).toBe(0);
});

test('a node service that starts while serving is revoked prints the advice, and serves after --allow', async () => {
  await using machine = await openMachine();
  const { runToEnd, run } = machine;
  await runToEnd('node', '--revoke');
  const node = run('node');
  await until('the advice', () => node.stderr().includes('opencode-mcp node --allow'));
  expect(node.stderr()).not.toContain('listening');
  await runToEnd('node', '--allow');
  await until('the node service', () => node.stderr().includes('listening'));
  // A revoked service closes like any other.
  await runToEnd('node', '--revoke');
  await until('the advice again', () => node.stderr().split('opencode-mcp node --allow').length === 3);
  node.kill('SIGTERM');
  expect(await within(node.ended, 'the node service to end')).toBe(0);
});

test('--revoke fails if its marker cannot be written', async () => {
  await using machine = await openMachine();
  await mkdir(join(machine.temp.path, '.local'));
  await writeFile(join(machine.temp.path, '.local/state'), 'a file in the way');
  const revoke = await machine.runToEnd('node', '--revoke');
  expect(revoke).toMatchObject({ code: 1, out: '', err: expect.stringContaining('cannot write') });
  expect(revoke.err).toContain(join(machine.stateDir, 'node-revoked'));
  const both = await machine.runToEnd('node', '--revoke', '--allow');
  expect(both).toMatchObject({ code: 2, err: expect.stringContaining('either --revoke or --allow') });
});

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { INSTANCE_PREFIX, LIST_PATH, type Listing } from '../../src/node/listing.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox } from '../rig/opencode-sandbox.ts';
import { openRegistry } from '../rig/registry.ts';
import { needTailnet, OPEN_POLICY, openTailnet, type Tailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';

const CAPABILITY = 'opencode-mcp.dev/cap/opencode';
const PASSWORD = 'pa55word-of-the-opencode';
const ID = 'real-one';
const PORT = 4095;

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** One request from a machine, by a process there. */
async function ask(from: TailnetMachine, url: string, init: Readonly<Record<string, unknown>> = {}): Promise<Answer> {
  const script =
    'const [url, init] = process.argv.slice(1); fetch(url, { ...JSON.parse(init), signal: AbortSignal.timeout(20000) }).then(async (r) => console.log(JSON.stringify({ status: r.status, text: await r.text() })), (e) => console.log(JSON.stringify({ status: 0, text: String(e.cause?.code ?? e) })))';
  const answer: Answer = JSON.parse(await from.exec([process.execPath, '-e', script, url, JSON.stringify(init)]));
  return answer;
}

const origin = (machine: TailnetMachine): string => `http://${machine.ip4}:${PORT}`;
const list = (from: TailnetMachine, to: TailnetMachine): Promise<Answer> => ask(from, origin(to) + LIST_PATH);
const grant = (role: string): Readonly<Record<string, unknown>> => ({
  tagOwners: OPEN_POLICY.tagOwners,
  grants: [
    { src: ['*'], dst: ['*'], ip: ['*'] },
    { src: ['bob@'], dst: ['ada@'], app: { [CAPABILITY]: [{ role }] } },
  ],
});

describe('the node service on a real tailnet', () => {
  let tailnet: Tailnet;
  let temp: TempDir;
  let sandbox: OpencodeSandbox;
  const services = new Map<string, { readonly child: ChildProcess; readonly log: () => string }>();

  /** `opencode-mcp node` on a machine, with no setting but where that machine's tailscaled and registry are. */
  async function serve(machine: TailnetMachine, password?: string): Promise<void> {
    const registry = await openRegistry(join(temp.path, `registry-${machine.name}`));
    await registry.add(
      { name: `on-${machine.name}`, port: 4096, cwd: sandbox.directory, id: ID },
      password === undefined ? {} : { password },
    );
    const env = {
      PATH: process.env['PATH'] ?? '',
      HOME: join(temp.path, machine.name),
      TMPDIR: temp.tmp,
      TAILSCALE_SOCKET: machine.socket,
      RELAY_REGISTRY_DIR: registry.path,
    };
    await mkdir(env.HOME);
    const child = machine.spawn([process.execPath, SERVER_SCRIPT, 'node'], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (log += text));
    services.set(machine.name, { child, log: () => log });
  }

  beforeAll(async () => {
    if (!canRunTailnet()) return;
    temp = tempDir('opencode-mcp-tailnet');
    tailnet = await openTailnet({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
        { name: 'guest', mode: 'tun', user: 'bob' },
        { name: 'ci', mode: 'tun', tags: ['tag:server'] },
      ],
    });
    const desk = tailnet.node('desk');
    sandbox = await openSandbox({ password: PASSWORD });
    const serveArgs = ['serve', '--port', '4096', '--hostname', '127.0.0.1'];
    desk.spawn([PINNED_OPENCODE, ...serveArgs], { env: { ...sandbox.env }, cwd: sandbox.directory, stdio: 'ignore' });
    const paths = JSON.stringify({ directory: sandbox.directory, worktree: sandbox.directory });
    const instance = `require('node:http').createServer((q, s) => { s.setHeader('content-type', 'application/json'); s.end(q.url === '/path' ? ${JSON.stringify(paths)} : q.url === '/global/health' ? '{"healthy":true,"version":"1.18.33"}' : '[]') }).listen(4096, '127.0.0.1')`;
    const box = tailnet.node('box');
    box.spawn([process.execPath, '-e', instance], { stdio: 'ignore' });
    await serve(desk, PASSWORD);
    await serve(box);
    process.stdout.write(`${tailnet.describe()}\n`);
    for (const machine of [desk, box]) {
      await until(`${machine.name} to list its instance`, async () =>
        (await list(tailnet.node('laptop'), machine)).text.includes(ID),
      ).catch((error: unknown) => {
        throw new Error(services.get(machine.name)?.log(), { cause: error });
      });
    }
  });
  afterAll(async () => {
    await tailnet?.close();
    await sandbox?.close();
    await temp?.close();
  });
  beforeEach(needTailnet);

  it('lists a real opencode to the own user’s other machine, over IPv4, IPv6 and by name', async () => {
    const [desk, laptop] = [tailnet.node('desk'), tailnet.node('laptop')];
    const listing: Listing = JSON.parse((await list(laptop, desk)).text);
    expect(listing.node).toMatchObject({ id: desk.id, name: 'desk.tailnet.test' });
    expect(listing.instances).toMatchObject([{ id: ID, name: 'on-desk', directory: sandbox.directory, port: 4096 }]);
    expect((await ask(laptop, `http://[${desk.ip6}]:${PORT}${LIST_PATH}`)).status).toBe(200);
    // Not reachable beside the tailnet.
    expect((await ask(laptop, `http://10.213.0.11:${PORT}${LIST_PATH}`)).text).toBe('ECONNREFUSED');
    expect((await ask(desk, `http://127.0.0.1:${PORT}${LIST_PATH}`)).text).toBe('ECONNREFUSED');
  });

  it('streams what a real opencode says while it is driven, with its password put in', async () => {
    const [desk, laptop] = [tailnet.node('desk'), tailnet.node('laptop')];
    const base = origin(desk) + INSTANCE_PREFIX + ID;
    const script = `fetch(process.argv[1]).then(async (r) => { for await (const chunk of r.body) process.stdout.write(chunk) })`;
    const tap = laptop.spawn([process.execPath, '-e', script, `${base}/event`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let heard = '';
    tap.stdout?.setEncoding('utf8').on('data', (text: string) => (heard += text));
    await until('the stream to begin', () => heard.includes('server.connected'));
    const made = await ask(laptop, `${base}/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"title":"Over the tailnet"}',
    });
    expect(made.status).toBe(200);
    await until('the session to be heard of', () => heard.includes('Over the tailnet'));
    const ended = once(tap, 'exit');
    tap.kill();
    await within(ended, 'the listener to end');
  });

  it('reaches a machine without a TUN, where a local process is not taken for its callers', async () => {
    const [box, laptop] = [tailnet.node('box'), tailnet.node('laptop')];
    expect(JSON.parse((await list(laptop, box)).text)).toMatchObject({ instances: [{ name: 'on-box' }] });
    expect((await ask(laptop, `http://[${box.ip6}]:${PORT}${LIST_PATH}`)).status).toBe(200);
    const script = `require('node:http').get({ host: '127.0.0.1', port: ${PORT}, path: '${LIST_PATH}', headers: { host: 'box' } }, (r) => console.log(r.statusCode))`;
    expect((await box.exec([process.execPath, '-e', script])).trim()).toBe('403');
    expect(services.get('box')?.log()).toContain('nobody the tailnet knows');
  });

  it('refuses itself, other users and tagged machines, and says what would admit them', async () => {
    const desk = tailnet.node('desk');
    expect(await list(desk, desk)).toMatchObject({ status: 403, text: expect.stringContaining('this very machine') });
    expect(await list(tailnet.node('guest'), desk)).toMatchObject({
      status: 403,
      text: expect.stringContaining('bob on guest.tailnet.test'),
    });
    expect(await list(tailnet.node('ci'), desk)).toMatchObject({
      status: 403,
      text: expect.stringContaining('OPENCODE_TAILNET_TAGS=tag:server'),
    });
  });

  it('admits another user by a grant, as far as its role goes and as long as it lasts', async () => {
    const [desk, guest] = [tailnet.node('desk'), tailnet.node('guest')];
    const base = origin(desk) + INSTANCE_PREFIX + ID;
    const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' };
    await tailnet.setPolicy(grant('read'));
    await until('the grant to read', async () => (await list(guest, desk)).status === 200);
    expect((await ask(guest, `${base}/session`)).status).toBe(200);
    expect((await ask(guest, `${base}/session`, post)).status).toBe(403);
    expect((await ask(guest, `${base}/config`)).status).toBe(403);
    expect((await ask(guest, `${base}/session?directory=/etc`)).status).toBe(403);
    await tailnet.setPolicy(grant('drive'));
    await until('the grant to drive', async () => (await ask(guest, `${base}/session`, post)).status === 200);
    await tailnet.setPolicy(OPEN_POLICY);
    await until('the end of the grant', async () => (await list(guest, desk)).status === 403);
  });

  it('goes on by itself after tailscale down and up, and after tailscaled was killed', async () => {
    const [desk, laptop] = [tailnet.node('desk'), tailnet.node('laptop')];
    const { child, log } = services.get('desk') ?? {};
    await desk.down();
    await until('the service to know', () => log?.().includes('not in the tailnet') === true);
    await desk.up();
    await until('the instance to be back', async () => (await list(laptop, desk)).status === 200);
    await desk.stop();
    await desk.start();
    await until('the instance to be back', async () => (await list(laptop, desk)).status === 200);
    expect(child?.exitCode).toBeNull();
  });
});

import type { TailnetSettings } from '../../src/config/settings.ts';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { createTailscaleSource, type TailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import { silentLogger } from '../../src/base/log.ts';
import { openEvents } from '../../src/opencode/events.ts';
import { requestJson } from '../../src/http/exchange.ts';
import { PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { openSandbox, type OpencodeSandbox } from '../rig/opencode-sandbox.ts';
import { needTailnet, openTailnet, type Tailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { until } from '../rig/wait.ts';
import { connects } from './queries.ts';

const never = new AbortController().signal;
const LIMITS = { timeoutMs: 10_000, maxBytes: 100_000 };
const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const TSX = import.meta.resolve('tsx');

/** An opencode on the tailnet's side of a machine, as one starts it by hand. */
async function startBare(machine: TailnetMachine): Promise<OpencodeSandbox> {
  const sandbox = await openSandbox();
  const { pid } = machine.spawn([PINNED_OPENCODE, 'serve', '--port', '4096', '--hostname', '::'], {
    env: sandbox.env,
    cwd: sandbox.directory,
    stdio: 'ignore',
  });
  process.stdout.write(`opencode on ${machine.name} (pid ${pid})\n`);
  return sandbox;
}

/** What `opencode-mcp list` prints on a machine, with nothing configured but where tailscaled's socket is. */
function listOn(machine: TailnetMachine, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const settings = { HOME: '/nonexistent', TAILSCALE_SOCKET: machine.socket, TRANSPORT: 'tailscale', ...env };
  const assignments = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return machine.exec(['env', ...assignments, process.execPath, '--import', TSX, MAIN, 'list']);
}

function sourceOn(machine: TailnetMachine, options: Partial<TailnetSettings> = {}): TailscaleSource {
  return createTailscaleSource(
    { socketPath: machine.socket, nodePort: 4095, ports: [4096], tags: [], users: [], ...options },
    { clock: systemClock, logger: silentLogger },
  );
}

function foundBy(source: TailscaleSource, what: string, isIt: (scan: Scan) => boolean): Promise<Scan> {
  return until(what, async () => {
    const scan = await source.scan(never);
    return isIt(scan) && scan;
  });
}

function keysOf({ candidates }: Scan): string[] {
  return candidates.map(({ key }) => key).toSorted();
}

describe('the tailscale source on a real tailnet', () => {
  let tailnet: Tailnet;
  const sandboxes: OpencodeSandbox[] = [];
  beforeAll(async () => {
    if (!canRunTailnet()) return;
    tailnet = await openTailnet({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
        { name: 'guest', mode: 'userspace', user: 'bob' },
      ],
    });
    process.stdout.write(`${tailnet.describe()}\n`);
    for (const name of ['laptop', 'box']) sandboxes.push(await startBare(tailnet.node(name)));
    // One that is silent at first is asked again in half a minute only.
    for (const [from, to] of [
      ['desk', 'laptop'],
      ['desk', 'box'],
      ['box', 'laptop'],
      ['guest', 'laptop'],
      ['guest', 'box'],
    ] as const)
      await connects(tailnet.node(from), tailnet.node(to), 4096);
  });
  afterAll(async () => {
    await Promise.all(sandboxes.map((sandbox) => sandbox.close()));
    await tailnet?.close();
  });
  beforeEach(needTailnet);

  it('finds a bare opencode by dialling where there is no TUN, and talks to it', async () => {
    const [box, laptop] = [tailnet.node('box'), tailnet.node('laptop')];
    const source = sourceOn(box);
    const { candidates } = await foundBy(source, 'the opencode of laptop', (scan) => scan.candidates.length > 0);
    expect(candidates.map(({ key, claims }) => [key, claims.name])).toEqual([[`${laptop.id}:4096`, 'laptop']]);
    const endpoint = candidates[0]?.endpoint;
    if (endpoint === undefined) throw new Error('Expected an endpoint');
    expect(endpoint.url).toBe(`http://${laptop.ip4}:4096`);
    expect(await requestJson({ endpoint }, '/global/health', LIMITS)).toMatchObject({ healthy: true });
    expect(await requestJson({ endpoint }, '/path', LIMITS)).toMatchObject({ directory: sandboxes[0]?.directory });
    const events = await openEvents({ endpoint }, '/global/event');
    for await (const { type } of events) {
      expect(type).toBe('server.connected');
      break;
    }
    events.close();
    await source.close();
  });

  it('finds both from a machine with a TUN, zero configuration', async () => {
    const desk = tailnet.node('desk');
    const text = await until('both to be listed', async () => {
      const listed = await listOn(desk);
      return /laptop/.test(listed) && /box/.test(listed) && listed;
    });
    expect(text).toContain('tailnet');
    expect(text).toContain('idle');
  });

  it("leaves another user's machines alone until that user is named", async () => {
    const guest = tailnet.node('guest');
    const closed = sourceOn(guest);
    expect(keysOf(await closed.scan(never))).toEqual([]);
    await closed.close();
    const open = sourceOn(guest, { users: ['ada'] });
    const scan = await foundBy(open, 'both', ({ candidates }) => candidates.length === 2);
    expect(new Set(scan.candidates.map(({ claims }) => claims.hostname))).toEqual(new Set(['box', 'laptop']));
    await open.close();
  });

  it('follows a new name', async () => {
    const source = sourceOn(tailnet.node('box'));
    await foundBy(source, 'laptop', ({ candidates }) => candidates.length === 1);
    await tailnet.headscale.cli('nodes', 'rename', '--identifier', tailnet.node('laptop').id, 'portable');
    await foundBy(source, 'the new name', ({ candidates }) => candidates[0]?.claims.hostname === 'portable');
    await tailnet.headscale.cli('nodes', 'rename', '--identifier', tailnet.node('laptop').id, 'laptop');
    await foundBy(source, 'the old name', ({ candidates }) => candidates[0]?.claims.hostname === 'laptop');
    await source.close();
  });

  it('keeps a peer whose tailscaled restarts', async () => {
    const laptop = tailnet.node('laptop');
    const source = sourceOn(tailnet.node('box'));
    const before = await foundBy(source, 'laptop', ({ candidates }) => candidates.length === 1);
    const endpoint = before.candidates[0]?.endpoint;
    if (endpoint === undefined) throw new Error('Expected an endpoint');
    await laptop.stop();
    expect(keysOf(await source.scan(never))).toEqual(keysOf(before));
    await laptop.start();
    await laptop.running();
    await until('laptop to answer again', () =>
      requestJson({ endpoint }, '/global/health', LIMITS).then(
        () => true,
        () => false,
      ),
    );
    expect(keysOf(await source.scan(never))).toEqual(keysOf(before));
    await source.close();
  });

  it('goes on without the control server', async () => {
    await tailnet.headscale.stop();
    const source = sourceOn(tailnet.node('box'));
    const { candidates } = await foundBy(source, 'laptop', (scan) => scan.candidates.length === 1);
    const endpoint = candidates[0]?.endpoint;
    if (endpoint === undefined) throw new Error('Expected an endpoint');
    expect(await requestJson({ endpoint }, '/global/health', LIMITS)).toMatchObject({ healthy: true });
    await source.close();
    await tailnet.headscale.start();
  });

  it('drops a peer whose key has expired', async () => {
    const source = sourceOn(tailnet.node('box'));
    await foundBy(source, 'laptop', ({ candidates }) => candidates.length === 1);
    await tailnet.headscale.cli('nodes', 'expire', '--identifier', tailnet.node('laptop').id);
    await foundBy(source, 'laptop to go', ({ candidates }) => candidates.length === 0);
    await source.close();
  });
});

describe('the tailscale source on a tailnet without IPv4 and MagicDNS', () => {
  it('finds and reaches a bare opencode', async (context) => {
    needTailnet(context);
    const nodes = [
      { name: 'desk', mode: 'tun' },
      { name: 'box', mode: 'userspace' },
    ] as const;
    await using tailnet = await openTailnet({ nodes, families: 'v6', magicDns: false });
    const desk = tailnet.node('desk');
    await using _sandbox = await startBare(desk);
    expect(desk.ip4).toBe('');
    await connects(tailnet.node('box'), desk, 4096);
    const source = sourceOn(tailnet.node('box'));
    const { candidates } = await foundBy(source, 'the opencode of desk', (scan) => scan.candidates.length > 0);
    const endpoint = candidates[0]?.endpoint;
    if (endpoint === undefined) throw new Error('Expected an endpoint');
    expect(endpoint.url).toBe(`http://[${desk.ip6}]:4096`);
    expect(candidates[0]?.claims.hostname).toBe('desk');
    expect(await requestJson({ endpoint }, '/global/health', LIMITS)).toMatchObject({ healthy: true });
    await source.close();
  });
});

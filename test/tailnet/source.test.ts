import type { TailnetSettings } from '../../src/config/settings.ts';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { createTailscaleSource, type TailscaleSource } from '../../src/discovery/tailnet/tailscale.ts';
import { silentLogger } from '../../src/base/log.ts';
import { openEvents } from '../../src/opencode/events.ts';
import { requestJson } from '../../src/http/exchange.ts';
import type { OpencodeSandbox } from '../rig/opencode-sandbox.ts';
import { needTailnet, openTailnet, type Tailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { until } from '../rig/wait.ts';
import { connects } from './queries.ts';
import { BARE_PORT, NODE_PORT, startBare } from './stage.ts';

const never = new AbortController().signal;
const LIMITS = { timeoutMs: 10_000, maxBytes: 100_000 };
const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const TSX = import.meta.resolve('tsx');

/** What `opencode-mcp list` prints on a machine, with nothing configured but where tailscaled's socket is. */
function listOn(machine: TailnetMachine, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const settings = { HOME: '/nonexistent', TAILSCALE_SOCKET: machine.socket, TRANSPORT: 'tailscale', ...env };
  const assignments = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return machine.exec(['env', ...assignments, process.execPath, '--import', TSX, MAIN, 'list']);
}

function sourceOn(machine: TailnetMachine, options: Partial<TailnetSettings> = {}): TailscaleSource {
  return createTailscaleSource(
    { socketPath: machine.socket, nodePort: NODE_PORT, ports: [BARE_PORT], tags: [], users: [], ...options },
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
      await connects(tailnet.node(from), tailnet.node(to), BARE_PORT);
  });
  afterAll(async () => {
    await Promise.all(sandboxes.map((sandbox) => sandbox.close()));
    await tailnet?.close();
  });
  beforeEach(needTailnet);

  it('finds and reads a bare opencode by dialling from a machine without a TUN', async () => {
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

  it('finds both from a machine with a TUN, without configuration', async () => {
    const desk = tailnet.node('desk');
    const text = await until('both to be listed', async () => {
      const listed = await listOn(desk);
      return /laptop/.test(listed) && /box/.test(listed) && listed;
    });
    expect(text).toContain('tailnet');
    expect(text).toContain('idle');
  });

  it("ignores another user's machines until that user is named", async () => {
    const guest = tailnet.node('guest');
    const closed = sourceOn(guest);
    expect(keysOf(await closed.scan(never))).toEqual([]);
    await closed.close();
    const open = sourceOn(guest, { users: ['ada'] });
    const scan = await foundBy(open, 'both', ({ candidates }) => candidates.length === 2);
    expect(new Set(scan.candidates.map(({ claims }) => claims.hostname))).toEqual(new Set(['box', 'laptop']));
    await open.close();
  });
});

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { Lan, type Machine, needNamespaces, type Program } from '../rig/network/lan.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { announcement, question, recordsOf, response, type Service } from '../rig/network/mdns-packets.ts';
import { missingForNamespaces } from '../rig/network/namespaces.ts';
import { recordedPackets } from '../rig/network/recorded-packets.ts';
import { until } from '../rig/wait.ts';
import { listed } from './listing.ts';
import { mutations } from './mutations.ts';
import { speaker } from './speaker.ts';

/** A server with 500 services takes some 75 MB. */
const MAX_MB = 200;

async function residentMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

function service(port: number, more: Partial<Service> = {}): Service {
  return { label: `opencode-${port}`, type: '_http._tcp.local', port, ...more };
}

describe('hostile multicast on the LAN', () => {
  let lan: Lan;
  let server: McpChild;
  let mallory: Machine;
  let honest: Program & { readonly directory: string };
  let host: string;

  beforeAll(async () => {
    if (missingForNamespaces() !== undefined) return;
    lan = await Lan.open();
    const viewer = await lan.machine('viewer');
    mallory = await lan.machine('mallory', { number: 66 });
    const machine = await lan.machine('honest');
    honest = await machine.opencode(4096);
    host = machine.on(1);
    server = await viewer.mcp();
    await untilHonestListed();
  });
  afterAll(async () => {
    await server?.close();
    await lan?.close();
  });
  beforeEach(needNamespaces);

  /** Waits until the honest machine is listed and answers. */
  async function untilHonestListed(): Promise<void> {
    await listed(server, (rows) => rows.some((row) => row.host === host && row.state === 'idle'));
  }

  test('forged announcements do not change another machine’s entry', async () => {
    await using liar = await speaker(mallory);
    // The honest machine's name, port and address; its goodbye; and its address with another port.
    await liar.send([
      announcement(service(4096, { addresses: [host] })),
      announcement(service(4096, { addresses: [host], ttl: 0 })),
      announcement(service(4097, { addresses: [host] })),
    ]);
    const rows = await listed(server, (found) => found.filter((row) => row.host === mallory.on(1)).length === 2);
    // The forged entries lead to the sender, where nothing listens.
    for (const row of rows.filter((one) => one.host === mallory.on(1)))
      expect([row.state, row.via]).toEqual(['offline', expect.stringContaining(`lan http://${mallory.on(1)}:`)]);
    expect(rows.find((row) => row.via?.endsWith(':4097'))?.reason).toContain(
      `an mDNS repeater relayed this, since it advertises the address ${host}`,
    );
    const honestRows = rows.filter((row) => row.host === host);
    expect(honestRows).toMatchObject([{ state: 'idle', directory: honest.directory, via: `lan http://${host}:4096` }]);
  });

  test('the server survives TXT records of 60 KB and malformed packets', async () => {
    await using liar = await speaker(mallory);
    const large = Array.from({ length: 240 }, (_, index) => `${index}=${'x'.repeat(245)}`);
    const ours = { label: 'opencode-id', type: '_opencode-mcp._tcp.local', port: 5000 };
    await liar.send([announcement({ ...ours, txt: large }), announcement(service(5001, { txt: large }))]);
    const recorded = [
      ...recordedPackets(),
      announcement(service(5002, { addresses: ['10.0.0.1', '10.0.0.2'] })),
      announcement({ ...ours, txt: ['v=1', 'id=abc', 'name=\u202Eevil\u0007', 'host=h', 'dir=/d'] }),
      question('_opencode-mcp._tcp.local'),
      response([...recordsOf(service(5003)), ...recordsOf(service(5004)), ...recordsOf(ours)]),
    ];
    // From several addresses, since packets from one address are limited.
    const addresses = Array.from({ length: 8 }, (_, index) => `192.168.1.${200 + index}`);
    for (const [index, from] of addresses.entries()) {
      await mallory.alias(from);
      await liar.send(mutations(recorded, 200, index), { from });
    }
    // The server still runs, and receives valid packets.
    await mallory.alias('192.168.1.67');
    await until('a valid announcement to be listed', async () => {
      // The packet may be lost behind the others.
      await liar.send([announcement(service(5999))], { from: '192.168.1.67' });
      return (await server.call('list_instances', { limit: 200 })).text.includes('lan http://192.168.1.67:5999');
    });
    await untilHonestListed();
    expect(server.stderr.filter((line) => !line.startsWith('info'))).toEqual([]);
    const { text } = await server.call('list_instances', { limit: 200 });
    expect(text).not.toMatch(/\p{Bidi_Control}/u);
    expect(text).not.toContain('\u0007');
  });

  test('the server survives a flood of announcements, goodbyes and questions', async () => {
    await using liar = await speaker(mallory);
    const flood = Array.from({ length: 1000 }, (_, index) => [
      announcement(service(10_000 + index)),
      announcement(service(10_000 + index, { ttl: 0 })),
      announcement({ label: `opencode-${index}`, type: '_opencode-mcp._tcp.local', port: 7000, txt: [`id=${index}`] }),
      question('_http._tcp.local'),
    ]).flat();
    const answered: boolean[] = [];
    const floodEnd = new AbortController();
    const calling = (async () => {
      while (!floodEnd.signal.aborted)
        answered.push((await server.call('list_instances', { limit: 1 })).result.isError !== true);
    })();
    await liar.send(flood, { times: 10 });
    floodEnd.abort();
    await calling;
    expect(answered.length).toBeGreaterThan(0);
    expect(answered.every(Boolean)).toBe(true);
    await untilHonestListed();
  });

  test('more than 500 services: the first 500 are listed, at most 64 per machine', async () => {
    const addresses = Array.from({ length: 9 }, (_, index) => `192.168.1.${200 + index}`);
    for (const address of addresses) await mallory.alias(address);
    await using crowd = await speaker(mallory);
    const packets = Array.from({ length: 80 }, (_, index) => announcement(service(20_000 + index)));
    const note = '192.168.1.200: advertises more services than are listed: at most 64 of one machine and 500 in all';
    await until('the note on the limit', async () => {
      // Receive buffers are small, so some packets are lost.
      for (const from of addresses) await crowd.send(packets, { from });
      return (await server.call('refresh_instances', { limit: 1 })).text.includes(note);
    });
    await untilHonestListed();
    expect(await residentMb(server.pid)).toBeLessThan(MAX_MB);
  });
});

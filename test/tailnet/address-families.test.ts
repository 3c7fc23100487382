import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { expectedReply } from '../rig/model-script.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import type { OpencodeSandbox } from '../rig/opencode-sandbox.ts';
import { connects, data, listed } from './queries.ts';
import { BARE_PORT, openTailnetStage, originOf, startBare, type TailnetInstance, type TailnetStage } from './stage.ts';

describe('a tailnet without IPv4 and without MagicDNS', () => {
  let stage: TailnetStage;
  const machine = (name: string): TailnetMachine => stage.tailnet.node(name);
  const instances = new Map<string, TailnetInstance>();
  let bare: OpencodeSandbox;

  beforeAll(async () => {
    if (!canRunTailnet()) return;
    stage = await openTailnetStage({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
        { name: 'plain', mode: 'tun' },
      ],
      families: 'v6',
      magicDns: false,
    });
    bare = await startBare(machine('plain'));
    for (const name of ['desk', 'box']) await stage.node(machine(name));
    for (const name of ['desk', 'box']) instances.set(name, await stage.opencode(machine(name)));
    await connects(machine('box'), machine('plain'), BARE_PORT);
  });
  afterAll(async () => {
    await bare?.close();
    await stage?.close();
  });
  beforeEach(needTailnet);

  it.each([
    ['desk', 'box'],
    ['box', 'desk'],
  ])('%s lists and drives what is on %s', async (from, to) => {
    expect(machine(to).ip4).toBe('');
    const name = instances.get(to)?.name ?? '';
    const server = await stage.server(machine(from));
    const row = await listed(server, name);
    expect(row.via).toContain(`tailnet ${originOf(machine(to))}/`);
    const message = `slow 5 20: from ${from} to ${to} `;
    const { result, progress, text } = await server.call('send', { instance: name, message });
    expect(result.structuredContent, text).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
    expect(progress.map(({ message: part }) => part ?? '').join('')).toBe(expectedReply(message));
  });

  it('a machine without a TUN finds a bare opencode, and reads it', async () => {
    const plain = machine('plain');
    const server = await stage.server(machine('box'));
    const row = await listed(server, 'plain');
    expect(row).toMatchObject({ host: 'plain', directory: bare.directory });
    expect(row.via).toContain(`tailnet http://[${plain.ip6}]:${BARE_PORT}`);
    expect(data(await server.call('list_sessions', { instance: 'plain' }))).toMatchObject({ sessions: [] });
  });
});

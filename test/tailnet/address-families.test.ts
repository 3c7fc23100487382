import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { expectedReply } from '../rig/model-script.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { listed } from './queries.ts';
import { openTailnetStage, originOf, type TailnetInstance, type TailnetStage } from './stage.ts';

describe('a tailnet without IPv4 and without MagicDNS', () => {
  let stage: TailnetStage;
  const machine = (name: string): TailnetMachine => stage.tailnet.node(name);
  const instances = new Map<string, TailnetInstance>();

  beforeAll(async () => {
    if (!canRunTailnet()) return;
    stage = await openTailnetStage({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
      ],
      families: 'v6',
      magicDns: false,
    });
    for (const name of ['desk', 'box']) await stage.node(machine(name));
    for (const name of ['desk', 'box']) instances.set(name, await stage.opencode(machine(name)));
  });
  afterAll(() => stage?.close());
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
});

import { describe, expect, it } from 'vitest';

import { expectedReply } from '../rig/model/model-script.ts';
import type { OpencodeSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { connects, data, listed } from './queries.ts';
import { BARE_PORT, originOf, stageForTests, type TailnetInstance } from './stage.ts';

describe('a tailnet without IPv4 and without MagicDNS', () => {
  const instances = new Map<string, TailnetInstance>();
  let bare: OpencodeSandbox;
  const stage = stageForTests(
    {
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
        { name: 'plain', mode: 'tun' },
      ],
      families: 'v6',
      magicDns: false,
    },
    async () => {
      bare = await stage.bare(machine('plain'));
      for (const name of ['desk', 'box']) await stage.node(machine(name));
      for (const name of ['desk', 'box']) {
        instances.set(name, await stage.opencode(machine(name)));
        await connects(machine(name), machine('plain'), BARE_PORT);
      }
    },
  );
  const { machine } = stage;

  it.each([
    ['desk', 'box'],
    ['box', 'desk'],
  ])(
    '%s lists the instance of %s and sends to it, and finds and reads an opencode without a wrapper',
    async (from, to) => {
      expect(machine(to).ip4).toBe('');
      const name = instances.get(to)?.name ?? '';
      const server = await stage.server(machine(from));
      const row = await listed(server, name);
      expect(row.via).toContain(`tailnet ${originOf(machine(to))}/`);
      const message = `slow 5 20: from ${from} to ${to} `;
      const { result, progress, text } = await server.call('send', { instance: name, message });
      expect(result.structuredContent, text).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
      expect(progress.map(({ message: part }) => part ?? '').join('')).toBe(expectedReply(message));
      const plain = await listed(server, 'plain');
      expect(plain).toMatchObject({ host: 'plain', directory: bare.directory });
      expect(plain.via).toContain(`tailnet http://[${machine('plain').ip6}]:${BARE_PORT}`);
      expect(data(await server.call('list_sessions', { instance: 'plain' }))).toMatchObject({ sessions: [] });
    },
  );
});

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { McpChild } from '../rig/mcp-child.ts';
import { expectedReply } from '../rig/model-script.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { until } from '../rig/wait.ts';
import { data, listed, openTailnetStage, request, rows, type TailnetInstance, type TailnetStage } from './stage.ts';

/** What a newcomer does: tailscale up, the node service, opencode-connected, and nothing else. */
describe('machines of one person, nothing configured', () => {
  let stage: TailnetStage;
  const machine = (name: string): TailnetMachine => stage.tailnet.node(name);
  const servers = new Map<string, McpChild>();
  const serverOn = (name: string): McpChild => {
    const server = servers.get(name);
    if (server === undefined) throw new Error(`Expected a server on ${name}`);
    return server;
  };
  const instances = new Map<string, TailnetInstance>();
  const instanceOn = (name: string): TailnetInstance => {
    const instance = instances.get(name);
    if (instance === undefined) throw new Error(`Expected an instance on ${name}`);
    return instance;
  };

  beforeAll(async () => {
    if (!canRunTailnet()) return;
    stage = await openTailnetStage({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
      ],
    });
    for (const name of ['desk', 'laptop', 'box']) await stage.node(machine(name));
    for (const name of ['desk', 'laptop', 'box']) servers.set(name, await stage.server(machine(name)));
  });
  afterAll(() => stage?.close());
  beforeEach(needTailnet);

  it('an instance that starts is listed on the other machines, without a round in between', async () => {
    for (const server of servers.values()) expect(await rows(server, 'instances')).toEqual([]);
    for (const name of ['desk', 'laptop', 'box']) {
      const instance = await stage.opencode(machine(name));
      instances.set(name, instance);
      expect(instance.name).toBe(`${name}-project`);
      for (const [where, server] of servers) {
        const row = await listed(server, instance.name);
        expect(row).toMatchObject({ host: name, directory: instance.directory });
        expect(row.via).toMatch(where === name ? /^(loopback|relay) http:\/\/127/ : /^tailnet /);
      }
    }
  });
});

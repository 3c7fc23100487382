import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { McpChild } from '../rig/mcp-child.ts';
import { expectedReply } from '../rig/model-script.ts';
import { PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { openSandbox } from '../rig/opencode-sandbox.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { needTmux, openTmux } from '../rig/tmux.ts';
import { until } from '../rig/wait.ts';
import { data, listed, request, rows, streams } from './queries.ts';
import { openTailnetStage, type TailnetInstance, type TailnetStage } from './stage.ts';

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

  const stream = (from: string, to: string): Promise<void> =>
    streams({ server: serverOn(from), model: stage.model, instance: instanceOn(to).name }, `${from}-${to}`);

  it('a new instance is listed on the other machines without a discovery round', async () => {
    for (const server of servers.values()) expect(await rows(server, 'instances')).toEqual([]);
    async function start(name: string): Promise<void> {
      const instance = await stage.opencode(machine(name));
      instances.set(name, instance);
      expect(instance.name).toBe(`${name}-project`);
      for (const [where, server] of servers) {
        const row = await listed(server, instance.name);
        expect(row).toMatchObject({ host: name, directory: instance.directory });
        expect(row.via).toMatch(where === name ? /^(loopback|relay) http:\/\/127/ : /^tailnet /);
      }
    }
    await start('desk');
    await Promise.all([start('laptop'), start('box')]);
  });

  it.each([
    ['laptop', 'desk'],
    ['desk', 'laptop'],
  ])('a send from %s to %s streams through TUN', stream);

  it('a send to a machine without a TUN streams through its tailscaled', () => stream('laptop', 'box'));

  it('a send from a machine without a TUN streams through LocalAPI dial', () => stream('box', 'laptop'));

  it('two sends at once stream side by side', async () => {
    await Promise.all([stream('desk', 'box'), stream('box', 'desk')]);
  });

  it('a turn that asks for permission shows as waiting on the third machine, and ends once answered there', async () => {
    const { name, url, directory } = instanceOn('desk');
    const message = 'bash: echo permitted';
    const sent = await serverOn('box').call('send', { instance: name, message });
    expect(data(sent)).toMatchObject({
      outcome: 'waiting',
      waiting: [expect.stringContaining('«bash "echo permitted"»') as string],
    });
    // Its node service says so within some 100 ms, and nobody is asked.
    const row = await listed(serverOn('laptop'), name, ({ state }) => state === 'waiting');
    expect(row).toMatchObject({
      state: 'waiting',
      waiting: [expect.stringContaining('«bash "echo permitted"»') as string],
    });
    const here = `?directory=${encodeURIComponent(directory)}`;
    const asked: readonly { readonly id: string }[] = JSON.parse(
      (await request(machine('laptop'), `${url}/permission${here}`)).text,
    );
    const reply = await request(machine('laptop'), `${url}/permission/${asked[0]?.id}/reply${here}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"reply":"once"}',
    });
    expect(reply).toMatchObject({ status: 200 });
    const read = await until('the end of the turn', async () => {
      const found = data(await serverOn('box').call('read', { instance: name, message_limit: 1 }));
      return (found['session'] as { state: string }).state === 'idle' && found;
    });
    expect(read).toMatchObject({ messages: [{ role: 'assistant', text: expectedReply(message, 'permitted') }] });
  });

  it('opencode attach on another machine draws the session', async (context) => {
    needTmux(context);
    const { name, url, directory } = instanceOn('desk');
    const said = 'echo: as told over the tailnet';
    const sent = data(await serverOn('laptop').call('send', { instance: name, message: said }));
    const { id } = sent['session'] as { id: string };
    await using person = await openSandbox({ directory, env: { NO_PROXY: machine('desk').ip4 } });
    await using terminal = await openTmux(person.env, directory);
    const command = `${PINNED_OPENCODE} attach ${url} --session ${id}`;
    await terminal.type(`ip netns exec ${machine('laptop').namespace} ${command}`, 'Enter');
    await terminal.shows(/as told over the tailnet[^]*as told over the tailnet/);
  });
});

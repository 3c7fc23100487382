import { describe, expect, it } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { until } from '../rig/wait.ts';
import { answers, listed, request, type Row, rows } from './queries.ts';
import { type NodeChild, originOf, stageForTests, type TailnetInstance } from './stage.ts';

describe('a tailnet in trouble', () => {
  let service: NodeChild;
  let server: McpChild;
  let desk: TailnetInstance;
  let box: TailnetInstance;
  const stage = stageForTests(
    {
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
      ],
    },
    async () => {
      service = await stage.node(machine('desk'));
      await stage.node(machine('box'));
      [desk, box] = await Promise.all([stage.opencode(machine('desk')), stage.opencode(machine('box'))]);
      // The tests wait for several probes of a silent machine to time out.
      server = await stage.server(machine('laptop'), { HEALTH_CHECK_TIMEOUT_MS: '5000' });
      for (const { name } of [desk, box]) await listed(server, name);
    },
  );
  const { machine } = stage;

  /** Probes until `isIt` accepts the row. */
  async function probed(name: string, isIt: (row: Row) => boolean): Promise<Row> {
    return until(`the wanted state of ${name}`, async () =>
      (await rows(server, 'instances')).find((row) => row.name === name && isIt(row)),
    );
  }

  const replies = ({ name }: TailnetInstance, message: string, from = server): Promise<void> =>
    answers({ server: from, model: stage.model, instance: name }, message);

  it('a peer whose tailscaled was killed is offline with a reason; others are not affected', async () => {
    await machine('desk').stop();
    // A send makes a request, so the last report of the node service does not matter.
    const { result, text } = await server.call('send', { instance: desk.name, message: 'echo: never' });
    expect(result.isError).toBe(true);
    expect(text).toMatch(/desk-project cannot be driven now.*gave no answer/);
    expect(stage.model.turns('echo: never')).toBe(0);
    const row = await listed(server, desk.name, ({ state }) => state === 'offline');
    expect(row).toMatchObject({ reason: expect.stringContaining('gave no answer'), last_seen: expect.any(String) });
    await replies(box, 'echo: meanwhile elsewhere');
  });

  it('a peer whose tailscaled runs again is idle again, by the same node service', async () => {
    await machine('desk').start();
    // The last report of the service is used for a minute, so the row does not show that the service is back.
    const list = originOf(machine('desk')) + LIST_PATH;
    await until('the service to answer', async () => (await request(machine('laptop'), list)).status === 200);
    await probed(desk.name, ({ state }) => state === 'idle');
    await replies(desk, 'echo: after the restart');
    expect(service.exitCode()).toBeNull();
  });

  it('a renamed node keeps its instance’s name, and shows its new host name', async () => {
    await machine('desk').cli('set', '--hostname=tower');
    const row = await listed(server, desk.name, ({ host }) => host === 'tower');
    expect(row).toMatchObject({ state: 'idle' });
    await replies(desk, 'echo: after the renaming');
    // The guard against DNS rebinding knows the new name.
    await until('the service to answer to its new name', async () => {
      const { status } = await request(machine('laptop'), originOf(machine('desk')) + LIST_PATH, {
        headers: { host: 'tower' },
      });
      return status === 200;
    });
  });

  it('known peers work without the control server, also from a new MCP server', async () => {
    const { headscale } = stage.tailnet;
    await headscale.stop();
    try {
      await probed(desk.name, ({ state }) => state === 'idle');
      await replies(desk, 'echo: without a control server');
      await replies(box, 'echo: without one there too');
      const late = await stage.server(machine('laptop'));
      for (const instance of [desk, box]) await listed(late, instance.name);
      await replies(desk, 'echo: by a new server', late);
    } finally {
      await headscale.start();
    }
  });

  it('a peer whose key has expired is no longer listed', async () => {
    const { id } = machine('desk');
    await stage.tailnet.headscale.cli('nodes', 'expire', '--identifier', id);
    await until('its row to disappear', async () => !(await rows(server)).some(({ name }) => name === desk.name));
    const { result, text } = await server.call('send', { instance: desk.name, message: 'echo: never' });
    expect(result.isError).toBe(true);
    expect(text).toMatch(/desk-project .*is gone/);
    await until('the log of the service', () => service.log().includes('NeedsLogin; run tailscale up'));
    await replies(box, 'echo: while the other’s key has expired');
  });

  it('a peer that logs in as another node with other addresses is served by the same service', async () => {
    const { id, ip4: before } = machine('desk');
    await stage.tailnet.headscale.cli('nodes', 'delete', '--identifier', id, '--force');
    await machine('desk').cli('logout');
    await machine('desk').join(await stage.tailnet.headscale.authKey('ada', []));
    expect(machine('desk').ip4).not.toBe(before);
    await until('the service to listen there', () =>
      service.log().includes(` listening address="${machine('desk').ip4}"`),
    );
    const list = originOf(machine('desk')) + LIST_PATH;
    await until('the service to answer', async () => (await request(machine('laptop'), list)).status === 200);
    // The first server may have asked the new node before its service listened, and asks again after an hour.
    const late = await stage.server(machine('laptop'));
    const row = await listed(late, desk.name);
    expect(row.via).toContain(machine('desk').ip4);
    await replies(desk, 'echo: at another address', late);
    expect(service.exitCode()).toBeNull();
  });
});

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeEach, describe, expect, it } from 'vitest';

import type { McpChild } from '../rig/programs/mcp-child.ts';
import { needSshd, type Sshd, startSshd } from '../rig/network/sshd.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { data, type Row, rows, streams } from './queries.ts';
import { type NodeChild, stageForTests, type TailnetInstance } from './stage.ts';

/** The address of the desk on the bridge, which is the LAN of the machines. */
const RELAY_ADDRESS = '10.213.0.11';

describe('a laptop on the tailnet, on the LAN and behind a relay', () => {
  const temp = tempDir('three-routes');
  let sshd: Sshd;
  let service: NodeChild;
  let instance: TailnetInstance;
  let server: McpChild;
  const stage = stageForTests(
    {
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
      ],
    },
    async () => {
      sshd = await startSshd({ elsewhere: { prefix: machine('desk').prefix, address: RELAY_ADDRESS } });
      process.stdout.write(`${sshd.describe()}\n`);
      const registry = join(temp.path, 'relay-registry');
      const lan = { OPENCODE_MDNS_INTERFACES: 'eth0' };
      service = await stage.node(machine('laptop'));
      instance = await stage.opencode(machine('laptop'), {
        args: ['--headless', '--lan'],
        env: { RELAY_SSH_CMD: sshd.relaySshCommand, RELAY_REMOTE_REGISTRY_DIR: registry, ...lan },
      });
      const rule = { source: 'mdns', host: 'laptop', password: await instance.child.password() };
      await mkdir(join(temp.path, 'opencode-mcp'));
      await writeFile(join(temp.path, 'opencode-mcp', 'config.json'), JSON.stringify({ credentials: [rule] }), {
        mode: 0o600,
      });
      server = await stage.server(machine('desk'), {
        RELAY_REGISTRY_DIR: registry,
        XDG_CONFIG_HOME: temp.path,
        HEALTH_CHECK_TIMEOUT_MS: '5000',
        ...lan,
      });
    },
  );
  const { machine } = stage;
  afterAll(() => temp.close());
  afterAll(() => sshd?.close());
  beforeEach((context) => needSshd(context));

  /** Waits until the list has one row and `accepts` returns true for it. */
  async function onlyRow(
    what: string,
    accepts: (row: Row & { readonly also?: readonly string[] }) => boolean,
  ): Promise<Row> {
    let last: readonly Row[] = [];
    const look = async (): Promise<Row | false> => {
      last = await rows(server, 'instances');
      const [row] = last;
      return row !== undefined && last.length === 1 && accepts(row) && row;
    };
    // A failed relay is retried within 30 s.
    return until(what, look, 150_000).catch((error: unknown) => {
      throw new Error(`listed: ${JSON.stringify(last)}`, { cause: error });
    });
  }

  it('is one entry that uses the best route and lists the others', async () => {
    const row = await onlyRow('three routes of one entry', ({ also }) => also?.length === 2);
    expect(row).toMatchObject({
      name: instance.name,
      host: 'laptop',
      via: expect.stringMatching(/^tailnet /) as string,
      also: [expect.stringMatching(/^relay /) as string, expect.stringMatching(/^lan /) as string],
    });
  });

  it('continues an answer on the next route when the current one is cut', async () => {
    const to = { server, model: stage.model, instance: instance.name };
    await streams(to, 'tailnet', async () => {
      process.kill(service.pid, 'SIGKILL');
      await within(service.exited, 'the end of the node service');
    });
    await onlyRow('the relay to be in use', ({ via }) => via.startsWith('relay '));
    await streams(to, 'relay', () => sshd.stop());
    await onlyRow('the LAN to be in use', ({ via }) => via.startsWith('lan '));
  });

  it(
    'is offline with a reason while all routes are cut, and idle once one is restored',
    { timeout: 400_000 },
    async () => {
      const laptop = machine('laptop');
      await laptop.exec(['ip', 'link', 'set', 'eth0', 'down']);
      const row = await onlyRow('the offline state', ({ state }) => state === 'offline');
      expect(row.reason).toMatch(/\w/);
      const refused = await server.call('send', { instance: instance.name, message: 'echo: lost' });
      expect(refused.result.isError).toBe(true);
      expect(refused.text).toMatch(/cannot be driven now|cannot be reached/);
      await laptop.exec(['ip', 'link', 'set', 'eth0', 'up']);
      await laptop.exec(['ip', 'route', 'replace', 'default', 'via', '10.213.0.1']);
      await sshd.start();
      await onlyRow('the idle state', ({ state }) => state === 'idle');
      const back = await server.call('send', { instance: instance.name, message: 'echo: back again' });
      expect(data(back)).toMatchObject({ outcome: 'completed', text: 'back again' });
      expect(stage.model.turns('echo: lost')).toBe(0);
    },
  );
});

import { once } from 'node:events';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import { type McpChild, SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { openSandbox } from '../rig/opencode/opencode-sandbox.ts';
import { OPENCODE_MCP, shellEnv } from '../rig/programs/shell-command.ts';
import { needTmux, openTmux } from '../rig/programs/tmux.ts';
import { until, within } from '../rig/wait.ts';
import { type Answer, data, listed, request, rows, streams } from './queries.ts';
import { NODE_PORT, type NodeChild, originOf, stageForTests, type TailnetInstance } from './stage.ts';

/** The steps of a new user: tailscale up, the node service, opencode-connected, and nothing else. */
describe('machines of one person, nothing configured', () => {
  const names = ['desk', 'laptop', 'box'] as const;
  const services = new Map<string, NodeChild>();
  const servers = new Map<string, McpChild>();
  const instances = new Map<string, TailnetInstance>();
  const nodes = names.map((name) => ({ name, mode: name === 'box' ? ('userspace' as const) : ('tun' as const) }));
  const stage = stageForTests({ nodes }, async () => {
    for (const name of names) services.set(name, await stage.node(machine(name)));
    for (const name of names) servers.set(name, await stage.server(machine(name)));
  });
  const { machine } = stage;
  const serverOn = (name: string): McpChild => servers.get(name)!;
  const instanceOn = (name: string): TailnetInstance => instances.get(name)!;

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

  it('a send streams through TUN', () => stream('laptop', 'desk'));

  it('two concurrent sends stream to and from a machine without a TUN', async () => {
    await Promise.all([stream('desk', 'box'), stream('box', 'desk')]);
  });

  it('a turn that asks for permission shows as waiting on the third machine, and ends once it is granted there', async () => {
    const { name, url, directory } = instanceOn('desk');
    const message = 'bash: echo permitted';
    const sent = await serverOn('box').call('send', { instance: name, message });
    expect(data(sent)).toMatchObject({
      outcome: 'waiting',
      waiting: [expect.stringContaining('«bash "echo permitted"»') as string],
    });
    // The node service reports it within about 100 ms, without a request to the opencode.
    const row = await listed(serverOn('laptop'), name, ({ state }) => state === 'waiting');
    expect(row).toMatchObject({
      state: 'waiting',
      waiting: [expect.stringContaining('«bash "echo permitted"»') as string],
    });
    const here = `?directory=${encodeURIComponent(directory)}`;
    const permissions: readonly { readonly id: string }[] = JSON.parse(
      (await request(machine('laptop'), `${url}/permission${here}`)).text,
    );
    const reply = await request(machine('laptop'), `${url}/permission/${permissions[0]?.id}/reply${here}`, {
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

  it('the list of a node service is served on the tailnet only, by IPv4, IPv6 and name', async () => {
    const [desk, laptop] = [machine('desk'), machine('laptop')];
    const { id, directory } = instanceOn('desk');
    const listing: Listing = JSON.parse((await request(laptop, originOf(desk) + LIST_PATH)).text);
    expect(listing.node).toMatchObject({ id: desk.id, name: 'desk.tailnet.test' });
    expect(listing.instances).toMatchObject([{ id, name: 'desk-project', directory }]);
    expect((await request(laptop, `http://[${desk.ip6}]:${NODE_PORT}${LIST_PATH}`)).status).toBe(200);
    const named = (host: string): Promise<Answer> => request(laptop, originOf(desk) + LIST_PATH, { headers: { host } });
    expect((await named('desk')).status).toBe(200);
    expect((await named(`desk.tailnet.test:${NODE_PORT}`)).status).toBe(200);
    expect((await named('desk.example')).status).toBe(421);
    // It does not listen on the other addresses of the machine.
    expect((await request(laptop, `http://10.213.0.11:${NODE_PORT}${LIST_PATH}`)).text).toBe('ECONNREFUSED');
    expect((await request(desk, `http://127.0.0.1:${NODE_PORT}${LIST_PATH}`)).text).toBe('ECONNREFUSED');
  });

  it('a machine without a TUN attaches to the terminal and opens the web page', async (context) => {
    needTmux(context);
    const box = machine('box');
    await using person = await openSandbox();
    const env = {
      ...person.env,
      ...shellEnv(person.home, join(person.home, 'registry')),
      TAILSCALE_SOCKET: box.socket,
      TRANSPORT: 'tailscale',
      OPENCODE_BIN: PINNED_OPENCODE,
    };
    const page = box.spawn([process.execPath, SERVER_SCRIPT, 'open', 'desk-project', '--print'], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await within(once(page.stdout ?? page, 'data'), 'the address')) as [Buffer];
    // Unlike a browser, Node does not resolve names below localhost.
    const read = `
      const { host, port, pathname } = new URL(process.argv[1]);
      const headers = { host, 'user-agent': 'Mozilla/5.0' };
      const get = (path) => new Promise((resolve) => require('node:http').get({ port, path, headers }, (answer) => {
        let text = '';
        answer.on('data', (part) => (text += part)).on('end', () => resolve({ ...answer, ...answer.headers, text }));
      }));
      get(pathname).then(async (entered) => {
        headers.cookie = entered['set-cookie'][0].split(';')[0];
        const page = await get(entered.location);
        const path = await get('/path');
        console.log(entered.location, page['content-type'], JSON.parse(path.text).directory);
      });`;
    const [location, type, directory] = (await box.exec([process.execPath, '-e', read, String(line).trim()])).split(
      ' ',
    );
    expect([location?.[0], type, directory]).toEqual(['/', 'text/html', `${instanceOn('desk').directory}\n`]);
    page.kill('SIGINT');
    await using screen = await openTmux(env, person.home);
    const command = [...box.prefix.map((word) => `'${word}'`), OPENCODE_MCP, 'attach', 'desk-project'];
    await screen.type(`${command.join(' ')}; echo "code $?"`, 'Enter');
    expect(await screen.shows(/ctrl\+p commands/)).toContain(instanceOn('desk').directory);
    await screen.type('echo: typed on box', 'Enter');
    await until('the request to the model', () => stage.model.turns('echo: typed on box') === 1);
    await screen.type('', 'C-c');
    await screen.shows(/code 0/);
  });

  it('the node service of a machine without a TUN refuses a local process', async () => {
    const box = machine('box');
    expect((await request(machine('laptop'), `http://[${box.ip6}]:${NODE_PORT}${LIST_PATH}`)).status).toBe(200);
    const local = await request(box, `http://127.0.0.1:${NODE_PORT}${LIST_PATH}`, { headers: { host: 'box' } });
    expect(local.status).toBe(403);
    expect(services.get('box')?.log()).toContain('did not come through tailscaled');
  });
});

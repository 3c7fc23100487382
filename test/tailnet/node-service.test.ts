import { once } from 'node:events';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { PINNED_OPENCODE } from '../rig/opencode-binaries.ts';
import { openSandbox } from '../rig/opencode-sandbox.ts';
import { OPENCODE_MCP, shellEnv } from '../rig/shell-command.ts';
import { canRunTailnet } from '../rig/tailnet-programs.ts';
import { needTailnet, type TailnetMachine } from '../rig/tailnet.ts';
import { needTmux, openTmux } from '../rig/tmux.ts';
import { until, within } from '../rig/wait.ts';
import { type Answer, request } from './queries.ts';
import {
  NODE_PORT,
  type NodeChild,
  openTailnetStage,
  originOf,
  type TailnetInstance,
  type TailnetStage,
} from './stage.ts';

const list = (from: TailnetMachine, to: TailnetMachine): Promise<Answer> => request(from, originOf(to) + LIST_PATH);

describe('the node service on a real tailnet', () => {
  let stage: TailnetStage;
  let instance: TailnetInstance;
  const services = new Map<string, NodeChild>();
  const machine = (name: string): TailnetMachine => stage.tailnet.node(name);

  beforeAll(async () => {
    if (!canRunTailnet()) return;
    stage = await openTailnetStage({
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'box', mode: 'userspace' },
      ],
    });
    for (const name of ['desk', 'box']) services.set(name, await stage.node(machine(name)));
    [instance] = await Promise.all([stage.opencode(machine('desk')), stage.opencode(machine('box'))]);
    for (const name of ['desk', 'box'])
      await until(`${name} to list its instance`, async () =>
        (await list(machine('laptop'), machine(name))).text.includes(`"${name}-project"`),
      ).catch((error: unknown) => {
        throw new Error(services.get(name)?.log(), { cause: error });
      });
  });
  afterAll(() => stage?.close());
  beforeEach(needTailnet);

  it('lists a real opencode to another machine of the same user, by IPv4, IPv6 and name', async () => {
    const [desk, laptop] = [machine('desk'), machine('laptop')];
    const { id, directory } = instance;
    const listing: Listing = JSON.parse((await list(laptop, desk)).text);
    expect(listing.node).toMatchObject({ id: desk.id, name: 'desk.tailnet.test' });
    expect(listing.instances).toMatchObject([{ id, name: 'desk-project', directory }]);
    expect((await request(laptop, `http://[${desk.ip6}]:${NODE_PORT}${LIST_PATH}`)).status).toBe(200);
    const named = (host: string): Promise<Answer> => request(laptop, originOf(desk) + LIST_PATH, { headers: { host } });
    expect((await named('desk')).status).toBe(200);
    expect((await named(`desk.tailnet.test:${NODE_PORT}`)).status).toBe(200);
    expect((await named('desk.example')).status).toBe(421);
    // Not reachable beside the tailnet.
    expect((await request(laptop, `http://10.213.0.11:${NODE_PORT}${LIST_PATH}`)).text).toBe('ECONNREFUSED');
    expect((await request(desk, `http://127.0.0.1:${NODE_PORT}${LIST_PATH}`)).text).toBe('ECONNREFUSED');
  });

  it('serves its terminal and its web page to a machine without a TUN', async (context) => {
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
    // A browser knows by itself where names below localhost are.
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
    expect(await box.exec([process.execPath, '-e', read, String(line).trim()])).toBe(
      `/ text/html ${instance.directory}\n`,
    );
    page.kill('SIGINT');
    await using screen = await openTmux(env, person.home);
    const words = [...box.prefix.map((word) => `'${word}'`), OPENCODE_MCP, 'attach', 'desk-project'];
    await screen.type(`${words.join(' ')}; echo "code $?"`, 'Enter');
    expect(await screen.shows(/ctrl\+p commands/)).toContain(instance.directory);
    await screen.type('echo: typed on box', 'Enter');
    await until('the model to be asked', () => stage.model.turns('echo: typed on box') === 1);
    await screen.type('', 'C-c');
    await screen.shows(/code 0/);
  });

  it('streams the events of a real opencode while it is driven, adding its password', async () => {
    const laptop = machine('laptop');
    const base = instance.url;
    const script = `fetch(process.argv[1]).then(async (r) => { for await (const chunk of r.body) process.stdout.write(chunk) })`;
    const tap = laptop.spawn([process.execPath, '-e', script, `${base}/event`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let heard = '';
    tap.stdout?.setEncoding('utf8').on('data', (text: string) => (heard += text));
    await until('the stream to begin', () => heard.includes('server.connected'));
    const made = await request(laptop, `${base}/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"title":"Over the tailnet"}',
    });
    expect(made.status).toBe(200);
    await until('the session to be heard of', () => heard.includes('Over the tailnet'));
    const ended = once(tap, 'exit');
    tap.kill();
    await within(ended, 'the listener to end');
  });

  it('serves from a machine without a TUN, and refuses a local process there', async () => {
    const [box, laptop] = [machine('box'), machine('laptop')];
    expect(JSON.parse((await list(laptop, box)).text)).toMatchObject({ instances: [{ name: 'box-project' }] });
    expect((await request(laptop, `http://[${box.ip6}]:${NODE_PORT}${LIST_PATH}`)).status).toBe(200);
    const script = `require('node:http').get({ host: '127.0.0.1', port: ${NODE_PORT}, path: '${LIST_PATH}', headers: { host: 'box' } }, (r) => console.log(r.statusCode))`;
    expect((await box.exec([process.execPath, '-e', script])).trim()).toBe('403');
    expect(services.get('box')?.log()).toContain('did not come through tailscaled');
  });

  it('recovers from tailscale down and up, and from a killed tailscaled', async () => {
    const [desk, laptop] = [machine('desk'), machine('laptop')];
    const service = services.get('desk');
    await desk.down();
    await until('the service to know', () => service?.log().includes('not in the tailnet') === true);
    await desk.up();
    await until('the instance to be back', async () => (await list(laptop, desk)).status === 200);
    await desk.stop();
    await desk.start();
    await until('the instance to be back', async () => (await list(laptop, desk)).status === 200);
    expect(service?.exitCode()).toBeNull();
  });
});

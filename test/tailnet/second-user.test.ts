import { describe, expect, it } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import { OPEN_POLICY } from '../rig/network/tailnet.ts';
import { until } from '../rig/wait.ts';
import { type Answer, answers, data, listed, request, rows } from './queries.ts';
import { grantToBob, type NodeChild, originOf, stageForTests, type TailnetInstance } from './stage.ts';

const FOR_ADA = { OPENCODE_TAILNET_USERS: 'ada' };
const FOR_SERVERS = { OPENCODE_TAILNET_TAGS: 'tag:server' };
const SECOND_PORT = { OPENCODE_NODE_PORT: '4195' };
const MESSAGE = 'echo: sent by ada';

describe('a second user and a tagged machine', () => {
  let service: NodeChild;
  let desk: TailnetInstance;
  const stage = stageForTests(
    {
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'guest', mode: 'tun', user: 'bob' },
        { name: 'ci', mode: 'tun', tags: ['tag:server'] },
      ],
    },
    async () => {
      service = await stage.node(machine('desk'));
      desk = await stage.opencode(machine('desk'));
      const own = await stage.server(machine('desk'));
      await listed(own, desk.name);
      await own.call('send', { instance: desk.name, message: MESSAGE });
    },
  );
  const { machine } = stage;

  it('the service refuses its own machine, other users and tagged machines, and names the setting that admits them', async () => {
    const list = (from: string): Promise<Answer> => request(machine(from), originOf(machine('desk')) + LIST_PATH);
    for (const [from, why] of [
      ['desk', 'this very machine'],
      ['guest', 'bob on guest.tailnet.test'],
      ['ci', 'OPENCODE_TAILNET_TAGS=tag:server'],
    ] as const)
      expect(await list(from)).toMatchObject({ status: 403, text: expect.stringContaining(why) });
  });

  it('without a grant bob sees nothing, and the refusal names the setting that admits him', async () => {
    const server = await stage.server(machine('guest'), FOR_ADA);
    const { instances, notes } = data(await server.call('instances'));
    expect(instances).toEqual([]);
    const refusal = /desk:4095.*bob on guest\.tailnet\.test, who is not admitted.*OPENCODE_TAILNET_USERS=bob/;
    expect(notes).toContainEqual(expect.stringMatching(refusal));
    expect(service.log()).toMatch(/refused.*bob on guest/);
  });

  it('with a grant to read bob sees the sessions and cannot drive', async () => {
    await stage.tailnet.setPolicy(grantToBob('read'));
    await admittedAs('read');
    const server = await stage.server(machine('guest'), FOR_ADA);
    await listed(server, desk.name);
    const read = await server.call('read', { instance: desk.name });
    expect(data(read)).toMatchObject({ messages: [{ text: MESSAGE }, { text: expectedReply(MESSAGE) }] });
    const { result, text } = await server.call('send', { instance: desk.name, message: 'echo: sent by bob' });
    expect(result.isError).toBe(true);
    expect(text).toMatch(/not taken.*HTTP 403.*Your role here is 'read'/);
    expect(stage.model.turns('echo: sent by bob')).toBe(0);
    const { status } = await request(machine('guest'), `${desk.url}/session?directory=/etc`);
    expect(status).toBe(403);
  });

  it('with a grant to read bob sees nothing of another worktree of the same opencode', async () => {
    const worktree = `${desk.directory}-worktree`;
    await machine('desk').exec(['git', '-C', desk.directory, 'worktree', 'add', '-q', '-b', 'other', worktree]);
    const there = `?directory=${encodeURIComponent(worktree)}`;
    const made = await asOwner('POST', `/session${there}`, { title: 'secret work' });
    const { id } = JSON.parse(made.text) as { id: string };
    await asOwner('POST', `/session/${id}/prompt_async`, { parts: [{ type: 'text', text: 'bash: echo secret' }] });
    await until('it to wait', async () => (await asOwner('GET', `/permission${there}`)).text.includes('per_'));
    const paths = ['/session', `/session${there}`, `/session/${id}`, `/session/${id}/message`, '/permission'];
    for (const path of [...paths, `/permission${there}`, '/session/status', '/experimental/session', '/project']) {
      const headers = { 'x-opencode-directory': worktree };
      const { status, text } = await request(machine('guest'), desk.url + path, { headers });
      expect([200, 403, 404], path).toContain(status);
      expect(text, path).not.toMatch(/secret|per_/);
      expect(status === 200 && text.includes(id), path).toBe(false);
    }
    const server = await stage.server(machine('guest'), FOR_ADA);
    await listed(server, desk.name);
    for (const tool of ['instances', 'list_sessions', 'get_status', 'respond']) {
      const { text } = await server.call(tool, tool === 'instances' ? {} : { instance: desk.name });
      expect(text, tool).not.toMatch(/secret|per_/);
    }
    await asOwner('POST', `/session/${id}/abort`);
  });

  it('with a grant to drive bob can send messages', async () => {
    await stage.tailnet.setPolicy(grantToBob('drive'));
    await admittedAs('drive');
    const server = await stage.server(machine('guest'), FOR_ADA);
    await listed(server, desk.name);
    const message = 'echo: driven by bob';
    expect(data(await server.call('send', { instance: desk.name, message }))).toMatchObject({
      outcome: 'completed',
      text: expectedReply(message),
    });
  });

  it('bob is refused as soon as the grant is withdrawn', async () => {
    await stage.tailnet.setPolicy(OPEN_POLICY);
    await admittedAs(undefined);
  });

  it('a tagged machine lists the instances of users named in its settings, and drives machines that name its tag', async () => {
    const ci = machine('ci');
    const unconfigured = data(await (await stage.server(ci)).call('instances'));
    expect(unconfigured['instances']).toEqual([]);
    expect(unconfigured['notes']).toContainEqual(
      expect.stringMatching(/tagged \(tag:server\).*OPENCODE_TAILNET_USERS/),
    );
    const refused = data(await (await stage.server(ci, FOR_ADA)).call('instances'));
    expect(refused['notes']).toContainEqual(
      expect.stringMatching(/ci\.tailnet\.test.*OPENCODE_TAILNET_TAGS=tag:server/),
    );
    await stage.node(machine('desk'), { ...FOR_SERVERS, ...SECOND_PORT });
    const server = await stage.server(ci, { ...FOR_ADA, ...SECOND_PORT });
    await listed(server, desk.name);
    await replies(server, desk, 'echo: driven by a tagged machine');
  });

  it('a tagged machine is listed on machines that name its tag, and serves the users named in its settings', async () => {
    const [ci, ada] = [machine('ci'), machine('desk')];
    await stage.node(ci);
    const list = originOf(ci) + LIST_PATH;
    expect(await request(ada, list)).toMatchObject({ status: 403, text: expect.stringContaining('ada on desk') });
    await stage.node(ci, { ...FOR_ADA, ...SECOND_PORT });
    const instance = await stage.opencode(ci);
    const withoutTag = await stage.server(ada, SECOND_PORT);
    const server = await stage.server(ada, { ...FOR_SERVERS, ...SECOND_PORT });
    await listed(server, instance.name);
    await replies(server, instance, 'echo: on a tagged machine');
    expect((await rows(withoutTag, 'instances')).map(({ name }) => name)).toEqual([desk.name]);
  });

  const replies = (server: McpChild, { name }: TailnetInstance, message: string): Promise<void> =>
    answers({ server, model: stage.model, instance: name }, message);

  /** A request to the opencode itself, on its own machine. */
  async function asOwner(method: string, path: string, body?: object): Promise<Answer> {
    const { localPort } = await desk.child.registered();
    const password = await desk.child.password();
    const authorization = `Basic ${Buffer.from(`opencode:${password}`).toString('base64')}`;
    return request(machine('desk'), `http://127.0.0.1:${localPort}${path}`, {
      method,
      headers: { authorization, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  /** Resolves when the service treats bob as having that role. */
  async function admittedAs(role: 'read' | 'drive' | undefined): Promise<void> {
    await until(`bob to have the role ${role}`, async () => {
      const [health, config] = await Promise.all(
        ['/global/health', '/config'].map(async (path) => (await request(machine('guest'), desk.url + path)).status),
      );
      return health === (role === undefined ? 403 : 200) && config === (role === 'drive' ? 200 : 403);
    });
  }
});

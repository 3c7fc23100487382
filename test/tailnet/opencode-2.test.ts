import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { INSTANCE_PREFIX, LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import type { McpChild } from '../rig/programs/mcp-child.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import type { Preview } from '../rig/opencode/opencode-preview.ts';
import { until } from '../rig/wait.ts';
import { type Answer, data, listed, request, rows, streams } from './queries.ts';
import { grantToBob, originOf, stageForTests } from './stage.ts';

/** The service of OpenCode 2 and the node service run, and nothing is configured. */
describe('the preview of OpenCode 2 on another machine', () => {
  let preview: Preview;
  let server: McpChild;
  /** A file that the plugin of its directory writes when it is loaded. */
  let canary: string;
  const stage = stageForTests(
    {
      nodes: [
        { name: 'desk', mode: 'tun' },
        { name: 'laptop', mode: 'tun' },
        { name: 'guest', mode: 'tun', user: 'bob' },
      ],
      policy: grantToBob('read'),
    },
    async () => {
      preview = await stage.preview(machine('desk'));
      canary = join(preview.home, 'canary');
      const plugins = join(preview.directory, '.opencode', 'plugin');
      await mkdir(plugins, { recursive: true });
      await writeFile(
        join(plugins, 'canary.js'),
        `import { appendFileSync } from 'node:fs';\nappendFileSync(${JSON.stringify(canary)}, 'it ran\\n');\nexport const Canary = async () => ({});\n`,
      );
      await stage.node(machine('desk'), { HOME: preview.home });
      // Like a terminal: a directory is known by its sessions.
      const made = await request(machine('desk'), `${preview.url}/api/session`, {
        method: 'POST',
        headers: { ...preview.headers, 'content-type': 'application/json' },
        body: JSON.stringify({ location: { directory: preview.directory } }),
      });
      expect(made).toMatchObject({ status: 200 });
      server = await stage.server(machine('laptop'));
    },
  );
  const { machine } = stage;
  const listing = async (): Promise<Listing> =>
    JSON.parse((await request(machine('laptop'), originOf(machine('desk')) + LIST_PATH)).text) as Listing;
  const ask = (path: string): Promise<Answer> =>
    request(machine('laptop'), `${originOf(machine('desk'))}${INSTANCE_PREFIX}server${path}`);

  it('is listed as a service with its directory, but not as an instance to older callers', async () => {
    expect(await listed(server, 'desk-project')).toMatchObject({ host: 'desk', directory: preview.directory });
    const all = await rows(server);
    expect(all.map(({ name }) => name).toSorted()).toEqual(['desk-project', 'desk:service']);
    for (const { via } of all) expect(via).toMatch(/^tailnet /);
    const { instances, services } = await listing();
    expect(instances).toEqual([]);
    expect(services).toMatchObject([{ id: 'server', dialect: 'opencode-2-preview', version: '1.18.18' }]);
    expect(JSON.stringify(services)).not.toContain(preview.password);
    await server.call('list_sessions', { instance: 'desk:service' });
    expect(existsSync(canary)).toBe(false);
  });

  it('is listed to a reader, who cannot load a directory or send', async () => {
    const guest = await stage.server(machine('guest'), { OPENCODE_TAILNET_USERS: 'ada' });
    expect(await listed(guest, 'desk-project')).toMatchObject({ state: 'idle', directory: preview.directory });
    const sessions = data(await guest.call('list_sessions', { instance: 'desk:service' }))['sessions'];
    expect(sessions).toHaveLength(1);
    const [{ id } = { id: '' }] = sessions as readonly { readonly id: string }[];
    for (const [tool, more] of [
      ['read', {}],
      ['send', { message: 'echo: sent by bob' }],
    ] as const) {
      const { result, text } = await guest.call(tool, { instance: 'desk-project', session_id: id, ...more });
      expect([tool, result.isError, text]).toEqual([tool, true, expect.stringContaining('HTTP 403')]);
    }
    expect(stage.model.turns('echo: sent by bob')).toBe(0);
    expect(existsSync(canary)).toBe(false);
  });

  it('streams the answer of a send', async () => {
    await streams({ server, model: stage.model, instance: 'desk-project' }, 'half');
    // Only now is the directory loaded.
    expect(existsSync(canary)).toBe(true);
  });

  it('asks for permission, and continues once it is granted remotely', async () => {
    const message = 'bash: echo permitted';
    const sent = data(await server.call('send', { instance: 'desk-project', message }));
    expect(sent).toMatchObject({ outcome: 'waiting', waiting: [expect.stringContaining('echo permitted') as string] });
    expect(data(await server.call('respond', { instance: 'desk-project', reply: 'once' }))).toMatchObject({
      outcome: 'completed',
      text: expect.stringContaining(expectedReply(message, 'permitted')) as string,
    });
  });

  it('ends a turn on abort_session', async () => {
    const message = 'gate-mid stuck: begun, |never ended';
    const sending = server.call('send', { instance: 'desk-project', message });
    await stage.model.waitForGate('stuck');
    const active = async (): Promise<string[]> =>
      Object.keys((JSON.parse((await ask('/api/session/active')).text) as { data: object }).data);
    const [id] = await active();
    const ended = data(await server.call('abort_session', { instance: 'desk-project', session_id: id }));
    expect(ended).toMatchObject({ aborted: true });
    expect(data(await sending)).toMatchObject({ outcome: 'aborted' });
    expect(await active()).toEqual([]);
    stage.model.release('stuck');
  });

  it('keeps its entry over a restart', async () => {
    const { pid } = preview;
    const before = (await listing()).services;
    await preview.kill9();
    await preview.restart();
    expect(preview.pid).not.toBe(pid);
    await until('it to be listed again', async () => (await listing()).services.length > 0);
    expect((await listing()).services).toEqual(before);
    await listed(server, 'desk-project');
    const message = 'echo: after the restart';
    expect(data(await server.call('send', { instance: 'desk-project', message }))).toMatchObject({
      outcome: 'completed',
      text: 'after the restart',
    });
  });
});

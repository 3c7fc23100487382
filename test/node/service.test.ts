import { describe, expect, test } from 'vitest';

import { tailnetNode } from '../rig/fake/memory-local-api.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { until } from '../rig/wait.ts';
import {
  CAPABILITY,
  DIRECTORY,
  ID,
  openNodeStage,
  OWN_LAPTOP,
  PASSWORD,
  READER,
  requestText,
  SELF,
  STRANGER,
} from './stage.ts';

describe('the list', () => {
  test('has the node and its live instances, but no password', async () => {
    await using stage = await openNodeStage();
    const listing = await stage.list();
    expect(listing).toEqual({
      protocol: 1,
      node: { id: 'self', name: 'self.tail0.ts.net', host: 'the-host' },
      instances: [
        {
          id: ID,
          name: 'one',
          host: 'the-host',
          directory: DIRECTORY,
          version: '1.18.33',
          port: stage.instance.port,
          path: `/opencode-mcp/v1/i/${ID}`,
        },
      ],
      services: [],
    });
    expect(JSON.stringify(listing)).not.toContain(PASSWORD);
  });

  test('a registration without an id gets a stable id, which is part of its path', async () => {
    await using stage = await openNodeStage();
    await using old = await startFakeOpencode({ directory: '/home/ada/old' });
    await stage.registry.add({ name: 'old', port: old.port, cwd: old.directory });
    const find = async (): Promise<string | undefined> =>
      (await stage.list()).instances.find(({ name }) => name === 'old')?.path;
    const path = await until('the old registration to be listed', find);
    expect(path).toMatch(/^\/opencode-mcp\/v1\/i\/r-[A-Za-z0-9_-]{22}$/);
    expect(await find()).toBe(path);
    expect(JSON.parse((await stage.call(`${path}/path`)).text)).toMatchObject({ directory: '/home/ada/old' });
  });

  test('leaves out other machines’ registrations and ports that another process took', async () => {
    let isOurs = true;
    await using stage = await openNodeStage({
      ports: { ours: (claims) => Promise.resolve(isOurs ? claims : []) },
    });
    await using second = await startFakeOpencode();
    await using remote = await startFakeOpencode();
    await stage.registry.add({ name: 'tunnelled', hostname: 'elsewhere', port: remote.port, cwd: remote.directory });
    await stage.registry.add({ name: 'moved', port: remote.port, localPort: 4096, cwd: remote.directory });
    await stage.registry.add({ name: 'second', port: second.port, cwd: second.directory });
    const names = await until('the second to be listed', async () => {
      const { instances } = await stage.list();
      return instances.length > 1 && instances.map(({ name }) => name);
    });
    expect(names).toEqual(['one', 'second']);
    isOurs = false;
    expect((await stage.list()).instances).toEqual([]);
    expect((await stage.ask('/session')).status).toBe(404);
    expect(stage.seen).toEqual([]);
  });
});

test('a process that took a registered port never receives its password', async () => {
  const authorizations: (string | undefined)[] = [];
  await using intruder = await listenHttp(({ headers }, response) => {
    authorizations.push(headers.authorization);
    response.setHeader('content-type', 'application/json').end('{"healthy":true,"version":"1.18.33"}');
  });
  await using stage = await openNodeStage({
    ports: { ours: (claims) => Promise.resolve(claims.filter(({ port }) => port !== intruder.port)) },
  });
  await stage.registry.add({ name: 'taken', port: intruder.port, id: 'taken' }, { password: PASSWORD });
  await until('a probe of the port', () => authorizations.length > 0);
  expect(authorizations).not.toContainEqual(expect.anything());
  expect((await stage.list()).instances.map(({ id }) => id)).toEqual([ID]);
});

describe('access', () => {
  test('the node’s user may drive; headers change no role, and a refusal names the caller and the settings that would admit them', async () => {
    await using stage = await openNodeStage();
    expect((await stage.ask('/anything?x=1')).text).toBe('{"answered":"/anything?x=1"}');
    const headers = {
      'x-forwarded-for': OWN_LAPTOP,
      'x-real-ip': OWN_LAPTOP,
      forwarded: `for=${OWN_LAPTOP}`,
      'tailscale-user-login': 'ada@example.com',
      authorization: `Basic ${Buffer.from(`opencode:${PASSWORD}`).toString('base64')}`,
    };
    expect((await stage.ask('/session', { from: READER, method: 'POST', headers })).status).toBe(403);
    const refused = await stage.ask('/anything', { from: STRANGER, headers });
    expect(refused.status).toBe(403);
    for (const part of [
      'eve@example.com on stranger.tail0.ts.net',
      'OPENCODE_TAILNET_USERS=eve@example.com',
      CAPABILITY,
    ])
      expect(refused.text).toContain(part);
    expect(stage.seen.length).toBe(1);
  });

  test('a call from the machine’s own address is refused without whois, which would name the owner', async () => {
    await using stage = await openNodeStage();
    stage.api.join(tailnetNode({ id: 'self', addresses: [SELF] }));
    const refused = await stage.ask('/session', { from: SELF });
    expect(refused.status).toBe(403);
    expect(refused.text).toContain('this very machine');
    expect(stage.api.asked).toEqual([]);
  });

  test('whois is called once per connection, also for pipelined requests', async () => {
    await using stage = await openNodeStage();
    const path = stage.path('/session');
    const answers = await stage.raw(requestText(path).repeat(2) + requestText(path, ['Connection: close']));
    expect(answers.match(/HTTP\/1\.1 200/g)?.length).toBe(3);
    expect(stage.api.asked.length).toBe(1);
    await stage.ask('/session');
    expect(stage.api.asked.length).toBe(2);
  });

  test('admissions and refusals are logged with identity, method and path only', async () => {
    await using stage = await openNodeStage();
    await stage.ask('/session?title=secret-title', { method: 'POST', body: 'secret-body' });
    await stage.ask('/session?title=secret-title', { from: STRANGER });
    const lines = stage.log.filter(({ message }) => message === 'admitted' || message === 'refused');
    expect(lines).toEqual([
      {
        level: 'info',
        message: 'admitted',
        fields: {
          caller: 'ada@example.com on laptop.tail0.ts.net',
          role: 'drive',
          method: 'POST',
          path: stage.path('/session'),
          reason: undefined,
        },
      },
      {
        level: 'warn',
        message: 'refused',
        fields: expect.objectContaining({ caller: 'eve@example.com on stranger.tail0.ts.net', method: 'GET' }),
      },
    ]);
    expect(JSON.stringify(stage.log)).not.toMatch(/secret-|pa55word/);
  });
});

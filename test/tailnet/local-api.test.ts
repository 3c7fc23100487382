import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { OPEN_POLICY, openTailnet, needTailnet, type Tailnet } from '../rig/network/tailnet.ts';
import { canRunTailnet } from '../rig/network/tailnet-programs.ts';
import { until, within } from '../rig/wait.ts';
import { CAPABILITY } from '../../src/node/access/admission.ts';
import { grantToBob } from './stage.ts';

/** Answers every request with the peer's address. */
const ECHO = `require('node:http').createServer((q, s) => s.end('seen ' + q.socket.remoteAddress)).listen(7777, '::', () => console.log('ready'))`;

describe('the LocalAPI of a real tailscaled', () => {
  let tailnet: Tailnet;
  beforeAll(async () => {
    if (!canRunTailnet()) return;
    tailnet = await openTailnet({
      nodes: [
        { name: 'one', mode: 'tun' },
        { name: 'two', mode: 'tun', tags: ['tag:server'] },
        { name: 'three', mode: 'userspace', user: 'bob' },
      ],
    });
    process.stdout.write(`${tailnet.describe()}\n`);
  });
  afterAll(() => tailnet?.close());
  beforeEach(needTailnet);

  it('reports the node, its peers, their users and tags', async () => {
    const { tun, self, peers, logins } = await tailnet.node('one').localApi.status();
    expect(tun).toBe(true);
    expect(self).toMatchObject({ dnsName: 'one.tailnet.test', os: 'linux', tags: [], shared: false, expired: false });
    const [two, three] = ['two', 'three'].map((name) => peers.find(({ hostName }) => hostName === name));
    expect(two).toMatchObject({ tags: ['tag:server'], online: true, shared: false });
    expect(three).toMatchObject({ tags: [], online: true, shared: false });
    expect(logins.get(self?.userId ?? '')).toBe('ada');
    expect(logins.get(three?.userId ?? '')).toBe('bob');
    expect(three?.addresses.toSorted()).toEqual([tailnet.node('three').ip4, tailnet.node('three').ip6].toSorted());
    expect((await tailnet.node('three').localApi.status()).tun).toBe(false);
  });

  it('identifies the user at an address, and no user for a tagged node', async () => {
    const { localApi } = tailnet.node('one');
    const [two, three] = [tailnet.node('two'), tailnet.node('three')];
    expect(await localApi.whois(`${three.ip4}:1`)).toMatchObject({ login: 'bob', node: { id: three.id, tags: [] } });
    expect(await localApi.whois(`[${three.ip6}]:1`)).toMatchObject({ login: 'bob', node: { id: three.id } });
    expect(await localApi.whois(`${two.ip4}:1`)).toMatchObject({
      login: 'tagged-devices',
      node: { id: two.id, tags: ['tag:server'] },
    });
    expect(await localApi.whois('100.64.99.99:1')).toBeUndefined();
    expect(await localApi.whois('127.0.0.1:1')).toBeUndefined();
  });

  it('reports the capabilities of a grant', async () => {
    const { localApi } = tailnet.node('one');
    await tailnet.setPolicy(grantToBob('read'));
    const whois = await until('the grant', async () => {
      const found = await localApi.whois(`${tailnet.node('three').ip4}:1`);
      return found?.capabilities.has(CAPABILITY) === true && found;
    });
    expect(whois.capabilities.get(CAPABILITY)).toEqual([{ role: 'read' }]);
    expect((await localApi.whois(`${tailnet.node('two').ip4}:1`))?.capabilities.has(CAPABILITY)).toBe(false);
    await tailnet.setPolicy(OPEN_POLICY);
  });

  it('notifies when a peer is renamed', async () => {
    const abort = new AbortController();
    const { localApi } = tailnet.node('one');
    const hints = localApi.watch(abort.signal)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first notification');
    await tailnet.node('two').cli('set', '--hostname=second');
    await until('the new name', async () => {
      await within(hints.next(), 'a notification');
      return (await localApi.status()).peers.some(({ hostName }) => hostName === 'second');
    });
    abort.abort();
  });

  it('dials from a node without a TUN, by address and by name, and rejects a closed port', async () => {
    const one = tailnet.node('one');
    const server = one.spawn([process.execPath, '-e', ECHO], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => server.stdout?.once('data', resolve));
    const three = tailnet.node('three');
    for (const host of [one.ip4, one.ip6, 'one', 'one.tailnet.test']) {
      const stream = await three.localApi.dial(host, 7777);
      stream.write('GET / HTTP/1.0\r\n\r\n');
      let text = '';
      for await (const chunk of stream as AsyncIterable<Buffer>) text += chunk.toString();
      expect(text).toMatch(new RegExp(`seen (::ffff:)?(${three.ip4}|${three.ip6})`));
    }
    await expect(three.localApi.dial(one.ip4, 7778)).rejects.toThrow(/502|refused/);
    server.kill('SIGKILL');
  });

  it('reports a stopped node, and follows the daemon through a restart', async () => {
    const three = tailnet.node('three');
    const abort = new AbortController();
    const hints = three.localApi.watch(abort.signal)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first notification');
    await three.down();
    expect((await three.localApi.status()).backendState).toBe('Stopped');
    await expect(three.localApi.dial(tailnet.node('one').ip4, 1)).rejects.toMatchObject({ kind: 'stopped' });
    await three.up();
    await three.stop();
    await expect(three.localApi.status()).rejects.toMatchObject({ kind: 'missing' });
    await three.start();
    await three.running();
    await until('a notification of the new daemon', async () => {
      await within(hints.next(), 'a notification');
      return (await three.localApi.status()).backendState === 'Running';
    });
    abort.abort();
  });
});

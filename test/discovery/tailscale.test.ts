import { describe, expect, it, onTestFinished } from 'vitest';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { TailnetSettings } from '../../src/config/settings.ts';
import { LATER_BUDGET_MS, PEERS_BUDGET_MS } from '../../src/discovery/tailnet/tailscale.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { openEvents } from '../../src/opencode/events.ts';
import { exchange } from '../../src/http/exchange.ts';
import { ADA, EVE, type FakePeer, json, statusText } from '../rig/fake/fake-local-api.ts';
import { FakeNodeService } from '../rig/fake/fake-node-service.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { until, within } from '../rig/wait.ts';
import { conformance, holdUp, type HintingStage } from './conformance.ts';
import {
  HEALTH,
  listed,
  listing,
  type PeerServer,
  type TailnetStage,
  tailnetStage,
  type TailnetStageOptions,
} from './tailscale-stage.ts';

const never = new AbortController().signal;

/** Two peers: one with a node service and two instances, one with a bare opencode. */
const TWO: TailnetStageOptions = {
  peers: [{}, {}],
  servers: { '100.64.0.2:4095': listing(listed('a'), listed('b')), '100.64.0.3:4096': HEALTH },
};

async function openStage(): Promise<HintingStage & TailnetStage> {
  const stage = await tailnetStage(TWO);
  return {
    ...stage,
    keys: ['n2CNTRL/a', 'n2CNTRL/b', 'n3CNTRL:4096'],
    change: async () => stage.fake.notify(),
  };
}

conformance({
  name: 'tailscale',
  working: openStage,
  hinting: openStage,
  unavailable: async () => {
    const stage = await openStage();
    await stage.fake.close();
    return stage;
  },
  failingMidway: async () => {
    const stage = await openStage();
    stage.fake.answers.set('status', (_, response) => {
      response.writeHead(200, { 'content-length': '9999' });
      response.write('{"BackendState":"Running","Peer":{', () => response.destroy());
    });
    return stage;
  },
  hanging: async () => {
    const [stage, hold] = [await openStage(), holdUp()];
    stage.fake.answers.set('status', (_, response) => {
      void hold.pass().then(() => {
        stage.fake.answers.delete('status');
        json(response, statusText(stage.fake));
      });
    });
    return { ...stage, ...hold };
  },
});

/** A clock moved by the test. Requests take real time, and a scan waits for all its requests. */
function manualClock(): Clock & { nowMs: number } {
  const sleep: Clock['sleep'] = (ms, signal) => systemClock.sleep(100 * ms, signal);
  const clock = { nowMs: 1_000_000, now: () => clock.nowMs, monotonic: () => clock.nowMs, sleep };
  return clock;
}

async function openForTest(options: TailnetStageOptions): Promise<TailnetStage> {
  const stage = await tailnetStage(options);
  onTestFinished(() => stage[Symbol.asyncDispose]());
  return stage;
}

describe('the tailscale source', () => {
  it('gives the reason why a peer of this user has no instance', async () => {
    const { source } = await openForTest({
      peers: [
        {},
        { HostName: 'desk', DNSName: 'desk.tailnet.test.', Online: false },
        { DNSName: 'empty.tailnet.test.' },
      ],
      servers: { '100.64.0.2:4095': listing(listed('a')), '100.64.0.4:4095': listing() },
    });
    const { candidates, dropped } = await source.scan(never);
    expect(candidates.map(({ key }) => key)).toEqual(['n2CNTRL/a']);
    const offlineReason =
      'offline according to the tailnet: nothing listens on port 4095 (node service) and 4096 (opencode); run the node service there (opencode-mcp node)';
    expect(dropped).toEqual([
      { subject: 'desk', reason: offlineReason },
      { subject: 'empty', reason: 'its node service lists no instance; start opencode-connected there' },
    ]);
  });

  it("builds the URL of an instance from the peer's address and the id", async () => {
    const { source } = await openForTest(TWO);
    const { candidates } = await source.scan(never);
    expect(candidates.find(({ key }) => key === 'n2CNTRL/a')).toEqual({
      source: 'tailscale',
      key: 'n2CNTRL/a',
      endpoint: {
        url: 'http://100.64.0.2:4095/opencode-mcp/v1/i/a',
        route: 'tailnet',
        dial: expect.any(Function) as unknown,
      },
      claims: { id: 'a', name: 'name of a', directory: '/srv', localPort: 5000, hostname: 'host2' },
      trust: { level: 'trusted' },
    });
    expect(candidates.find(({ key }) => key === 'n3CNTRL:4096')?.endpoint.url).toBe('http://100.64.0.3:4096');
  });

  it('reaches candidates by dialling: requests share a connection, and a stream has its own', async () => {
    const { source, fake } = await openForTest({
      ...TWO,
      servers: {
        '100.64.0.3:4096': (request, response) => {
          if (request.url === '/global/health') return json(response, JSON.stringify(HEALTH));
          response.writeHead(200, { 'content-type': 'text/event-stream' });
          response.write('data: {"payload":{"type":"server.connected","properties":{}}}\n\n');
        },
      },
    });
    const { candidates } = await source.scan(never);
    const { endpoint } = candidates[0]!;
    fake.dialled.length = 0;
    const limits = { timeoutMs: 5000, maxBytes: 1000 };
    for (let round = 0; round < 2; round += 1)
      expect((await exchange({ endpoint }, '/global/health', {}, limits)).status).toBe(200);
    expect(fake.dialled).toEqual(['100.64.0.3:4096']);
    const events = await openEvents({ endpoint }, '/global/event');
    for await (const { type } of events) {
      expect(type).toBe('server.connected');
      break;
    }
    events.close();
    expect(fake.dialled).toEqual(['100.64.0.3:4096', '100.64.0.3:4096']);
    const closed = { ...endpoint, url: 'http://100.64.0.3:1' };
    await expect(exchange({ endpoint: closed }, '/global/health', {}, limits)).rejects.toMatchObject({
      kind: 'unreachable',
      message: expect.stringContaining('refused') as unknown,
    });
  });

  it('connects to peers without dialling through tailscaled if it has a TUN', async () => {
    const web = await listenHttp((_, response) => response.end(JSON.stringify(HEALTH)));
    onTestFinished(() => web.close());
    const own = { TailscaleIPs: ['127.0.0.1', '::1'] };
    const { source, fake } = await openForTest({
      peers: [own],
      status: { TUN: true, Self: { ID: 'me', UserID: ADA, ...own } },
      options: { nodePort: web.port, ports: [web.port] },
    });
    const { candidates } = await source.scan(never);
    expect(candidates.map(({ endpoint }) => endpoint)).toEqual([
      { url: `http://127.0.0.1:${web.port}`, route: 'tailnet' },
    ]);
    expect(fake.dialled).toEqual([]);
  });

  const TAGGED = { Tags: ['tag:server'], UserID: EVE };
  const NOT_ALLOWED = /^belongs to eve@example.com; name that login in OPENCODE_TAILNET_USERS to list it$/;
  it.each<[name: string, peer: FakePeer, options: Partial<TailnetSettings>, reason?: RegExp]>([
    ['of this user', {}, {}],
    ['that the control server reports as offline, since it can be wrong', { Online: false }, {}],
    ['of another user', { UserID: EVE }, {}, NOT_ALLOWED],
    ['of an allowed user', { UserID: EVE }, { users: ['Eve@Example.com'] }],
    ['with an expired key', { Expired: true }, {}, /^its key has expired; run tailscale up there$/],
    ['shared in', { ShareeNode: true }, {}, /^belongs to ada@example.com; name that login/],
    ['shared in, of an allowed user', { DNSName: 'x.other.ts.net.', UserID: EVE }, { users: ['eve@example.com'] }],
    [
      'that is an exit node for hire',
      { Tags: ['tag:mullvad-exit-node'] },
      { tags: ['tag:mullvad-exit-node'] },
      /^an exit node for hire$/,
    ],
    ['tagged', TAGGED, {}, /^tagged tag:server, and so of no user; name a tag in OPENCODE_TAILNET_TAGS to list it$/],
    ['tagged, of an allowed user', TAGGED, { users: ['eve@example.com'] }, /^tagged /],
    ['with an allowed tag', TAGGED, { tags: ['tag:server'] }],
    ['that is a phone', { OS: 'iOS' }, {}, /^runs iOS, which opencode does not support$/],
    ['without an address in a common family', { TailscaleIPs: [] }, {}, /^has no address of a family/],
  ])('sends a request to a peer %s, or gives the reason why it does not', async (_, peer, options, reason) => {
    const logins = { [`${ADA}`]: { LoginName: 'ada@example.com' }, [`${EVE}`]: { LoginName: 'eve@example.com' } };
    const { source, fake } = await openForTest({ peers: [peer], options, status: { User: logins } });
    const { dropped } = await source.scan(never);
    expect(fake.dialled.length > 0).toBe(reason === undefined);
    if (reason !== undefined) expect(dropped).toMatchObject([{ reason: expect.stringMatching(reason) }]);
  });

  it('asks no peer on a tagged machine, which has no user, and notes which setting allows users', async () => {
    const { source, fake } = await openForTest({
      peers: [{}],
      status: { Self: { ID: 'me', UserID: ADA, Tags: ['tag:ci'], TailscaleIPs: ['100.64.0.1'] } },
    });
    const { notes } = await source.scan(never);
    expect(fake.dialled).toEqual([]);
    expect(notes[0]?.reason).toContain('OPENCODE_TAILNET_USERS');
  });

  it('uses IPv6 if there is no other common family', async () => {
    const { source } = await openForTest({
      peers: [{ TailscaleIPs: ['fd7a:115c:a1e0::9'] }],
      servers: { 'fd7a:115c:a1e0::9:4095': listing(listed('a')) },
    });
    const { candidates } = await source.scan(never);
    expect(candidates.map(({ endpoint }) => endpoint.url)).toEqual([
      'http://[fd7a:115c:a1e0::9]:4095/opencode-mcp/v1/i/a',
    ]);
  });

  describe('a hostile list', () => {
    async function scanOf(list: PeerServer): Promise<Scan> {
      const { source } = await openForTest({
        peers: [{}],
        servers: { '100.64.0.2:4095': list },
        options: { ports: [] },
      });
      return source.scan(never);
    }

    it('cannot lead to another host', async () => {
      const redirects = { path: 'http://evil.example/', url: 'http://evil.example/', host: 'evil.example', port: 80 };
      const { candidates } = await scanOf(listing(listed('a', redirects)));
      expect(candidates[0]?.endpoint.url).toBe('http://100.64.0.2:4095/opencode-mcp/v1/i/a');
      // A credential rule for a host must not match the name that a peer gives itself.
      expect(candidates[0]?.claims.hostname).toBe('host2');
    });

    it('cannot have ids that lead elsewhere', async () => {
      const ids = ['../../x', 'a/b', 'a?b', 'a#b', '@evil.example', 'a%2f', '', 'x'.repeat(65), 7, null];
      const { candidates, notes } = await scanOf(listing(listed('ok'), ...ids.map((id) => ({ ...listed('a'), id }))));
      expect(candidates.map(({ key }) => key)).toEqual(['n2CNTRL/ok']);
      expect(notes[0]?.reason).toContain(`${ids.length} entries`);
    });

    it('is read with cleaned names, and without invalid fields or repeated ids', async () => {
      const { candidates, notes } = await scanOf(
        listing(
          listed('a', { name: '\u001b[2Jred\u202e\n', directory: '/a\u0000b' }),
          listed('a', { name: 'other' }),
          listed('b', { name: 7 }),
          listed('c', { port: 0.5 }),
        ),
      );
      expect(candidates.map(({ claims }) => claims)).toEqual([
        { id: 'a', name: 'red', localPort: 5000, hostname: 'host2' },
      ]);
      expect(notes[0]?.reason).toContain('3 entries');
    });

    it('is read with cleaned services, and without their id, name or directory', async () => {
      const { candidates, notes } = await scanOf({
        ...listing(listed('a')),
        services: [
          {
            id: 'service',
            version: '2.1.2\u001b[2J',
            port: 49_374,
            dialect: 'opencode-2',
            directory: '/etc',
            name: 'x',
          },
          { id: 'server', version: '1.18.18', port: 4096, dialect: 'opencode-2-preview', path: '/elsewhere' },
          { id: '../a' },
          { id: 'a' },
        ],
      });
      expect(candidates.map(({ key, endpoint: { url }, claims }) => [key, url, claims])).toEqual([
        ['n2CNTRL/a', expect.stringContaining('/i/a') as string, expect.objectContaining({ id: 'a' })],
        [
          'n2CNTRL/service',
          'http://100.64.0.2:4095/opencode-mcp/v1/i/service',
          { service: { version: '2.1.2' }, localPort: 49_374, hostname: 'host2' },
        ],
        [
          'n2CNTRL/server',
          'http://100.64.0.2:4095/opencode-mcp/v1/i/server',
          { service: { version: '1.18.18', isPreview: true }, localPort: 4096, hostname: 'host2' },
        ],
      ]);
      expect(notes[0]?.reason).toContain('2 entries');
      const services = Array.from({ length: 40 }, (_, n) => ({ id: `s${n}` }));
      expect((await scanOf({ ...listing(), services })).candidates).toHaveLength(16);
    });

    it('is cut at 200 entries', async () => {
      const { candidates, notes } = await scanOf(listing(...Array.from({ length: 500 }, (_, n) => listed(`i${n}`))));
      expect(candidates).toHaveLength(200);
      expect(notes[0]?.reason).toContain('300 entries');
    });

    it.each<[string, PeerServer, string]>([
      ['not JSON', (_, response) => response.end('<html>'), 'something other than a list'],
      ['without a protocol', { instances: [] }, 'something other than a list'],
      ['of another protocol', { protocol: 2, instances: [] }, 'protocol 2'],
      ['a redirect', (_, response) => response.writeHead(302, { location: 'http://evil.example/' }).end(), 'HTTP 302'],
      ['of 2 MB', (_, response) => response.end('x'.repeat(2 * 1024 * 1024)), 'larger than'],
    ])('is refused with a note if it is %s', async (_, list, reason) => {
      const { candidates, notes } = await scanOf(list);
      expect(candidates).toEqual([]);
      expect(notes).toEqual([{ subject: 'host2:4095', reason: expect.stringContaining(reason) }]);
    });
  });

  it('notes that a peer does not admit this machine, and does not try other ports', async () => {
    const { source, requests } = await openForTest({
      peers: [{}],
      servers: {
        '100.64.0.2:4095': (_, response) => response.writeHead(403).end('you are eve@example.com\n'),
        '100.64.0.2:4096': HEALTH,
      },
    });
    const { candidates, notes } = await source.scan(never);
    expect(candidates).toEqual([]);
    expect(notes).toEqual([{ subject: 'host2:4095', reason: 'its node service answered "you are eve@example.com"' }]);
    expect(requests).toEqual(['GET 100.64.0.2:4095/opencode-mcp/v1/states']);
  });

  it.each([
    {
      name: 'that requires a password',
      server: ((_, response) => response.writeHead(401).end()) satisfies PeerServer,
      found: true,
    },
    { name: 'that reports itself unhealthy', server: { healthy: false, version: '1' }, found: true },
    { name: 'that is another program', server: { hello: 'world' }, found: false },
  ])('lists a server on the port of opencode $name: $found', async ({ server, found }) => {
    const { source } = await openForTest({ peers: [{}], servers: { '100.64.0.2:4096': server } });
    expect((await source.scan(never)).candidates).toHaveLength(found ? 1 : 0);
  });

  it('keeps the candidates of a node service that has been down for 60 s, and drops them after 120 s', async () => {
    const clock = manualClock();
    const { source, serve } = await openForTest({ ...TWO, clock });
    expect((await source.scan(never)).candidates).toHaveLength(3);
    await serve('100.64.0.2:4095', undefined);
    clock.nowMs += 60_000;
    expect((await source.scan(never)).candidates).toHaveLength(3);
    clock.nowMs += 60_000;
    expect((await source.scan(never)).candidates.map(({ key }) => key)).toEqual(['n3CNTRL:4096']);
  });

  it('asks a peer that refuses connections at growing intervals, and immediately when it comes online or a scan is thorough', async () => {
    const clock = manualClock();
    const { source, fake } = await openForTest({ peers: [{ Online: false }], options: { ports: [] }, clock });
    const asksWithin = async (ms: number): Promise<number> => {
      const before = fake.dialled.length;
      for (let passed = 0; passed < ms; passed += 5000) {
        clock.nowMs += 5000;
        await source.scan(never);
      }
      return fake.dialled.length - before;
    };
    await source.scan(never);
    const [first, second] = [await asksWithin(100_000), await asksWithin(100_000)];
    expect(first).toBeGreaterThan(second);
    expect(second).toBeGreaterThan(0);
    const before = fake.dialled.length;
    fake.peers = [{ Online: true }];
    await source.scan(never);
    expect(fake.dialled).toHaveLength(before + 1);
    await source.scan(never, { thorough: true });
    expect(fake.dialled).toHaveLength(before + 2);
  });

  it('waits for a silent peer for a limited time, which is shorter in later scans that are not thorough', async () => {
    const limits: number[] = [];
    const clock: Clock = {
      ...systemClock,
      // The time limits of scans expire immediately, and requests never time out.
      sleep: (ms, signal) => {
        if (ms !== PEERS_BUDGET_MS && ms !== LATER_BUDGET_MS) return systemClock.sleep(1000 * ms, signal);
        limits.push(ms);
        return Promise.resolve();
      },
    };
    const { source } = await openForTest({ peers: [{}], servers: { '100.64.0.2:4095': () => {} }, clock });
    for (const thorough of [false, false, true]) await within(source.scan(never, { thorough }), 'the scan');
    expect(limits).toEqual([PEERS_BUDGET_MS, LATER_BUDGET_MS, PEERS_BUDGET_MS]);
  });

  it('aborts held requests when tailscaled is stopped, because they may hang', async () => {
    const node = new FakeNodeService([{ id: 'a', directory: '/srv' }]);
    const servers = { '100.64.0.2:4095': node.serve };
    const { source, fake } = await openForTest({ peers: [{}], options: { ports: [] }, servers });
    const hints = source.changes(never)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first hint');
    await source.scan(never);
    const [held] = await until('a request to be held', () => node.held.size === 1 && [...node.held.keys()]);
    fake.status = { TUN: false, BackendState: 'NeedsLogin' };
    await expect(source.scan(never)).rejects.toThrow();
    await until('it to be aborted', () => held?.destroyed);
  });

  it('hints at changes found by a scan that then failed', async () => {
    const clock: Clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(1000 * ms, signal) };
    const { source, fake, requests } = await openForTest({
      peers: [{}, {}],
      servers: { '100.64.0.2:4095': () => {}, '100.64.0.3:4095': listing(listed('a')) },
      options: { ports: [] },
      clock,
    });
    const hints = source.changes(never)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first hint');
    await fake.busOpened;
    const abort = new AbortController();
    const scan = source.scan(abort.signal);
    scan.catch(() => {});
    // A service that was found is followed at once.
    await until('the answer', () => requests.filter((request) => request.includes('100.64.0.3')).length > 1);
    const hint = hints.next();
    abort.abort();
    await expect(scan).rejects.toThrow();
    await within(hint, 'a hint');
  });

  it.each([
    ['NeedsLogin', 'run tailscale up'],
    ['Starting', 'still starting'],
  ])('fails with advice while tailscaled is in %s', async (BackendState, message) => {
    const { source } = await openForTest({ ...TWO, status: { BackendState } });
    await expect(source.scan(never)).rejects.toMatchObject({
      kind: 'stopped',
      message: expect.stringContaining(message) as unknown,
    });
  });
});

import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';

import { type Clock, systemClock } from '../../src/base/clock.ts';
import { createTailscaleSource, LATER_BUDGET_MS, PEERS_BUDGET_MS } from '../../src/discovery/tailnet/tailscale.ts';
import { silentLogger } from '../../src/base/log.ts';
import { openEvents } from '../../src/opencode/events.ts';
import { exchange } from '../../src/http/exchange.ts';
import { EVE, json, startFakeLocalApi } from '../rig/fake-local-api.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { tempDir } from '../rig/temp.ts';
import { deferred, until, within } from '../rig/wait.ts';
import { conformance, holdUp, type HintingStage } from './conformance.ts';
import {
  HEALTH,
  listed,
  listing,
  type TailnetStage,
  tailnetStage,
  type TailnetStageOptions,
} from './tailscale-stage.ts';

const never = new AbortController().signal;
const OPTIONS = { nodePort: 4095, ports: [4096], tags: [], users: [] };

/** Two peers: one with a node service and two instances, one with a bare opencode. */
const TWO: TailnetStageOptions = {
  peers: [{}, {}],
  servers: { '100.64.0.2:4095': listing(listed('a'), listed('b')), '100.64.0.3:4096': HEALTH },
};
const KEYS = ['n2CNTRL/a', 'n2CNTRL/b', 'n3CNTRL:4096'];

async function hintingStage(): Promise<HintingStage> {
  const stage = await tailnetStage(TWO);
  const change = async (): Promise<void> => stage.fake.notify();
  return { source: stage.source, keys: KEYS, change, [Symbol.asyncDispose]: () => stage[Symbol.asyncDispose]() };
}

conformance({
  name: 'tailscale',
  working: hintingStage,
  hinting: hintingStage,
  unavailable: async () => {
    const temp = tempDir();
    const source = createTailscaleSource(
      { ...OPTIONS, socketPath: join(temp.path, 'none.sock') },
      { clock: systemClock, logger: silentLogger },
    );
    return { source, keys: [], [Symbol.asyncDispose]: () => temp.close() };
  },
  failingMidway: async () => {
    const stage = await tailnetStage(TWO);
    stage.fake.answers.set('status', (_, response) => {
      response.writeHead(200, { 'content-length': '9999' });
      response.write('{"BackendState":"Running","Peer":{', () => response.destroy());
    });
    return { source: stage.source, keys: KEYS, [Symbol.asyncDispose]: () => stage[Symbol.asyncDispose]() };
  },
  hanging: async () => {
    const stage = await tailnetStage(TWO);
    const { entered, release, pass } = holdUp();
    stage.fake.answers.set('status', (request, response) => {
      void pass().then(() => {
        stage.fake.answers.delete('status');
        stage.fake.asked.length = 0;
        // As if it had not been held up.
        return import('../rig/fake-local-api.ts').then(({ statusText }) => json(response, statusText(stage.fake)));
      });
      request.on('error', () => {});
    });
    return {
      source: stage.source,
      keys: KEYS,
      entered,
      release,
      [Symbol.asyncDispose]: () => stage[Symbol.asyncDispose](),
    };
  },
});

/** A clock moved by the test. Requests take real time, and a scan waits for all that it asks. */
function movedClock(): Clock & { nowMs: number } {
  const sleep: Clock['sleep'] = (ms, signal) => systemClock.sleep(100 * ms, signal);
  const clock = { nowMs: 1_000_000, now: () => clock.nowMs, monotonic: () => clock.nowMs, sleep };
  return clock;
}

/** Lets pending loopback traffic arrive. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await nextTurn();
}

describe('the tailscale source', () => {
  const stages: AsyncDisposable[] = [];
  afterEach(async () => {
    for (const stage of stages.splice(0).toReversed()) await stage[Symbol.asyncDispose]();
  });
  async function enter(options: TailnetStageOptions): Promise<TailnetStage> {
    const stage = await tailnetStage(options);
    stages.push(stage);
    return stage;
  }

  it('gives for each other peer the reason why it has no instance', async () => {
    const { source } = await enter({
      peers: [
        {},
        { HostName: 'desk', DNSName: 'desk.tailnet.test.', Online: false },
        { HostName: 'phone', DNSName: 'phone.tailnet.test.', OS: 'iOS' },
        { HostName: 'bobs', DNSName: 'bobs.tailnet.test.', UserID: 7 },
        { HostName: 'server', DNSName: 'server.tailnet.test.', Tags: ['tag:ci'] },
        { HostName: 'old', DNSName: 'old.tailnet.test.', Expired: true },
        { HostName: 'empty', DNSName: 'empty.tailnet.test.' },
      ],
      servers: { '100.64.0.2:4095': listing(listed('a')), '100.64.0.8:4095': listing() },
    });
    const { candidates, dropped } = await source.scan(never);
    expect(candidates.map(({ key }) => key)).toEqual(['n2CNTRL/a']);
    expect(dropped).toEqual([
      {
        subject: 'desk',
        reason:
          'offline according to the tailnet: nothing listens on port 4095 (node service) and 4096 (opencode); run the node service there (opencode-mcp node)',
      },
      { subject: 'empty', reason: 'its node service lists no instance; start opencode-connected there' },
      { subject: 'phone', reason: 'runs iOS, which opencode does not support' },
      { subject: 'bobs', reason: expect.stringContaining('name that login in OPENCODE_TAILNET_USERS to list it') },
      { subject: 'server', reason: expect.stringMatching(/^tagged tag:ci, .*OPENCODE_TAILNET_TAGS to list it$/) },
      { subject: 'old', reason: 'its key has expired; run tailscale up there' },
    ]);
  });

  it("builds the URL of an instance from the peer's address and the id", async () => {
    const { source } = await enter(TWO);
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

  it('connects to candidates by dialling', async () => {
    const { source, fake } = await enter(TWO);
    const { candidates } = await source.scan(never);
    const endpoint = candidates.find(({ key }) => key === 'n3CNTRL:4096')?.endpoint;
    if (endpoint === undefined) throw new Error('Expected an endpoint');
    fake.dialled.length = 0;
    const limits = { timeoutMs: 5000, maxBytes: 1000 };
    for (let round = 0; round < 2; round += 1)
      expect((await exchange({ endpoint }, '/global/health', {}, limits)).status).toBe(200);
    // The second request reused the connection of the first.
    expect(fake.dialled).toEqual(['100.64.0.3:4096']);
    await expect(
      exchange({ endpoint: { ...endpoint, url: 'http://100.64.0.3:1' } }, '/global/health', {}, limits),
    ).rejects.toMatchObject({ kind: 'unreachable', message: expect.stringContaining('refused') as unknown });
  });

  it('streams over a separate dialled connection', async () => {
    const { source, fake } = await enter({
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
    const endpoint = candidates[0]?.endpoint;
    if (endpoint === undefined) throw new Error('Expected an endpoint');
    fake.dialled.length = 0;
    const events = await openEvents({ endpoint }, '/global/event');
    for await (const { type } of events) {
      expect(type).toBe('server.connected');
      break;
    }
    events.close();
    expect(fake.dialled).toEqual(['100.64.0.3:4096']);
  });

  it('connects without tailscaled if that has a TUN', async () => {
    const web = await listenHttp((_, response) => response.end(JSON.stringify(HEALTH)));
    stages.push(web);
    const own = { TailscaleIPs: ['127.0.0.1', '::1'] };
    const fake = await startFakeLocalApi({
      peers: [own],
      status: { Self: { ID: 'me', UserID: 9_007_199_254_740_993n, ...own } },
    });
    stages.push(fake);
    const source = createTailscaleSource(
      { ...OPTIONS, socketPath: fake.socketPath, nodePort: web.port, ports: [web.port] },
      { clock: systemClock, logger: silentLogger },
    );
    stages.push({ [Symbol.asyncDispose]: () => source.close() });
    const { candidates } = await source.scan(never);
    expect(candidates.map(({ endpoint }) => endpoint)).toEqual([
      { url: `http://127.0.0.1:${web.port}`, route: 'tailnet' },
    ]);
    expect(fake.dialled).toEqual([]);
  });

  const TAGGED = { Tags: ['tag:server'], UserID: EVE };
  it.each([
    { name: 'of the own user', peer: {}, options: {}, asked: true },
    { name: 'offline: the control server can be wrong', peer: { Online: false }, options: {}, asked: true },
    { name: 'of another user', peer: { UserID: EVE }, options: {}, asked: false },
    { name: 'of a user who is named', peer: { UserID: EVE }, options: { users: ['Eve@Example.com'] }, asked: true },
    { name: 'with an expired key', peer: { Expired: true }, options: {}, asked: false },
    { name: 'shared in', peer: { ShareeNode: true }, options: {}, asked: false },
    {
      name: 'shared in, of a user who is named',
      peer: { DNSName: 'x.other.ts.net.', UserID: EVE },
      options: { users: ['eve@example.com'] },
      asked: true,
    },
    {
      name: 'for hire',
      peer: { Tags: ['tag:mullvad-exit-node'] },
      options: { tags: ['tag:mullvad-exit-node'] },
      asked: false,
    },
    { name: 'tagged', peer: TAGGED, options: {}, asked: false },
    { name: 'tagged, of a user who is named', peer: TAGGED, options: { users: ['eve@example.com'] }, asked: false },
    { name: 'with a tag that is named', peer: TAGGED, options: { tags: ['tag:server'] }, asked: true },
    { name: 'a phone', peer: { OS: 'iOS' }, options: {}, asked: false },
    { name: 'another phone', peer: { OS: 'android' }, options: {}, asked: false },
    { name: 'a TV', peer: { OS: 'tvOS' }, options: {}, asked: false },
    { name: 'without an address of our family', peer: { TailscaleIPs: [] }, options: {}, asked: false },
  ])('asks a peer $name: $asked', async ({ peer, options, asked }) => {
    const { source, fake } = await enter({
      peers: [peer],
      options,
      status: {
        User: {
          '9007199254740993': { LoginName: 'ada@example.com' },
          [`${EVE}`]: { LoginName: 'eve@example.com' },
        },
      },
    });
    await source.scan(never);
    expect(fake.dialled.length > 0).toBe(asked);
  });

  it('has no user on a tagged machine, and notes that', async () => {
    const { source, fake } = await enter({
      peers: [{}],
      status: { Self: { ID: 'me', UserID: 9_007_199_254_740_993n, Tags: ['tag:ci'], TailscaleIPs: ['100.64.0.1'] } },
    });
    const { notes } = await source.scan(never);
    expect(fake.dialled).toEqual([]);
    expect(notes[0]?.reason).toContain('OPENCODE_TAILNET_USERS');
  });

  it('uses IPv6 if there is no other common family', async () => {
    const { source } = await enter({
      peers: [{ TailscaleIPs: ['fd7a:115c:a1e0::9'] }],
      servers: { 'fd7a:115c:a1e0::9:4095': listing(listed('a')) },
    });
    const { candidates } = await source.scan(never);
    expect(candidates.map(({ endpoint }) => endpoint.url)).toEqual([
      'http://[fd7a:115c:a1e0::9]:4095/opencode-mcp/v1/i/a',
    ]);
  });

  it('costs one status and no request for 600 hired exit nodes', async () => {
    const { source, fake } = await enter({
      peers: Array.from({ length: 600 }, (_, number) => ({ DNSName: `de-${number}.mullvad.ts.net.` })),
    });
    await source.scan(never);
    expect(fake.asked).toEqual(['status']);
    expect(fake.dialled).toEqual([]);
  });

  it('asks sixteen peers at once', async () => {
    let open = 0;
    let most = 0;
    const all = deferred<void>();
    const { source } = await enter({
      peers: Array.from({ length: 40 }, () => ({})),
      servers: Object.fromEntries(
        Array.from({ length: 40 }, (_, index) => [
          `100.64.0.${index + 2}:4095`,
          (_request: unknown, response: ServerResponse) => {
            open += 1;
            most = Math.max(most, open);
            if (open === 16) void turns(500).then(all.resolve);
            void all.promise.then(() =>
              setImmediate(() => {
                open -= 1;
                json(response, JSON.stringify(listing()));
              }),
            );
          },
        ]),
      ),
    });
    await source.scan(never);
    expect(most).toBe(16);
  });

  describe('a hostile list', () => {
    async function scanOf(list: unknown): ReturnType<TailnetStage['source']['scan']> {
      const { source } = await enter({
        peers: [{}],
        servers: { '100.64.0.2:4095': list as [] },
        options: { ports: [] },
      });
      return source.scan(never);
    }

    it('cannot lead to another host', async () => {
      const elsewhere = { path: 'http://evil.example/', url: 'http://evil.example/', host: 'evil.example', port: 80 };
      const { candidates } = await scanOf(listing(listed('a', elsewhere)));
      expect(candidates[0]?.endpoint.url).toBe('http://100.64.0.2:4095/opencode-mcp/v1/i/a');
      // A credential rule for a host must not match the name that a peer gives itself.
      expect(candidates[0]?.claims.hostname).toBe('host2');
    });

    it.each(['../../x', 'a/b', 'a?b', 'a#b', '@evil.example', 'a%2f', '', 'x'.repeat(65), 7, null])(
      'cannot have the id %j',
      async (id) => {
        const { candidates, notes } = await scanOf(listing(listed('ok'), { ...listed('a'), id }));
        expect(candidates.map(({ key }) => key)).toEqual(['n2CNTRL/ok']);
        expect(notes[0]?.reason).toContain('1 entries');
      },
    );

    it('has cleaned names and unique ids', async () => {
      const { candidates } = await scanOf(
        listing(
          listed('a', { name: '\u001b[2Jred\u202e\n', directory: '/a\u0000b', port: 0.5 }),
          listed('b', { name: 7 }),
        ),
      );
      expect(candidates).toEqual([]);
      const clean = await scanOf(
        listing(listed('a', { name: '\u001b[2Jred\u202e\n', directory: '/a\u0000b' }), listed('a', { name: 'other' })),
      );
      expect(clean.candidates.map(({ claims }) => claims)).toEqual([
        { id: 'a', name: 'red', localPort: 5000, hostname: 'host2' },
      ]);
    });

    it('has separate services, cleaned and without id, name or directory', async () => {
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

    it.each([
      { name: 'no JSON', list: (_: unknown, response: { end(text: string): void }) => response.end('<html>') },
      { name: 'another protocol', list: { protocol: 2, instances: [] } },
      { name: 'a list without a protocol', list: { instances: [] } },
      { name: 'an array', list: [] },
    ])('is refused with a note: $name', async ({ list }) => {
      const { candidates, notes } = await scanOf(list);
      expect(candidates).toEqual([]);
      expect(notes).toHaveLength(1);
      expect(notes[0]?.subject).toBe('host2:4095');
    });

    it('is neither followed to a redirect nor read without limit', async () => {
      const redirect = await enter({
        peers: [{}],
        options: { ports: [] },
        servers: {
          '100.64.0.2:4095': (_, response) => response.writeHead(302, { location: 'http://evil.example/' }).end(),
        },
      });
      expect((await redirect.source.scan(never)).notes[0]?.reason).toContain('HTTP 302');
      const endless = await enter({
        peers: [{}],
        options: { ports: [] },
        servers: { '100.64.0.2:4095': (_, response) => response.end('x'.repeat(2 * 1024 * 1024)) },
      });
      expect((await endless.source.scan(never)).notes[0]?.reason).toContain('larger than');
    });
  });

  it('notes that it is not admitted, and does not try other ports', async () => {
    const { source, requests } = await enter({
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
      name: 'that is locked',
      server: ((_, response) => response.writeHead(401).end()) as Parameters<typeof listenHttp>[0],
      found: true,
    },
    { name: 'that says it is not healthy', server: { healthy: false, version: '1' }, found: true },
    { name: 'that is another program', server: { hello: 'world' }, found: false },
  ])('finds a bare opencode $name: $found', async ({ server, found }) => {
    const { source } = await enter({ peers: [{}], servers: { '100.64.0.2:4096': server } });
    expect((await source.scan(never)).candidates).toHaveLength(found ? 1 : 0);
  });

  it('keeps candidates while a service restarts, and drops them after a while', async () => {
    const clock = movedClock();
    const { source, serve } = await enter({ ...TWO, clock });
    expect((await source.scan(never)).candidates).toHaveLength(3);
    await serve('100.64.0.2:4095', undefined);
    clock.nowMs += 60_000;
    expect((await source.scan(never)).candidates).toHaveLength(3);
    clock.nowMs += 60_000;
    expect((await source.scan(never)).candidates.map(({ key }) => key)).toEqual(['n3CNTRL:4096']);
  });

  it('drops candidates at once when access is revoked, and asks again after a pause', async () => {
    const clock = movedClock();
    const { source, serve, requests } = await enter({ ...TWO, clock });
    await source.scan(never);
    await serve('100.64.0.2:4095', (_, response) => response.writeHead(403).end());
    expect((await source.scan(never)).candidates.map(({ key }) => key)).toEqual(['n3CNTRL:4096']);
    const asksWithin = async (ms: number): Promise<number> => {
      requests.length = 0;
      clock.nowMs += ms;
      await source.scan(never);
      return requests.filter((request) => request.includes('100.64.0.2')).length;
    };
    expect(await asksWithin(4000)).toBe(0);
    for (let asks = 0; asks < 5; asks += 1) await asksWithin(31_000);
    expect(await asksWithin(29_000)).toBe(0);
    // Access may have been granted by now.
    expect(await asksWithin(2000)).toBe(1);
  });

  it('asks hundreds of peers in several scans; a thorough scan also asks those that are not due', async () => {
    const { source, fake, serve } = await enter({
      peers: Array.from({ length: 300 }, () => ({})),
      options: { ports: [] },
      servers: { '100.64.0.2:4095': (_, response) => response.writeHead(403).end() },
      clock: movedClock(),
    });
    // No peer is due again, because the clock stands still.
    for (const asked of [256, 300, 300]) {
      await source.scan(never);
      expect(fake.dialled).toHaveLength(asked);
    }
    expect(new Set(fake.dialled).size).toBe(300);
    expect(fake.asked.filter((path) => path === 'status')).toHaveLength(3);
    await serve('100.64.0.2:4095', listing(listed('granted')));
    expect((await source.scan(never)).candidates).toEqual([]);
    const { candidates } = await source.scan(never, { thorough: true });
    expect(candidates.map(({ key }) => key)).toEqual(['n2CNTRL/granted']);
    expect(fake.dialled).toHaveLength(300 + 256);
  });

  it('drops unlisted instances and removed peers at once', async () => {
    const { source, serve, fake } = await enter(TWO);
    await source.scan(never);
    await serve('100.64.0.2:4095', listing(listed('b')));
    expect((await source.scan(never)).candidates.map(({ key }) => key)).toEqual(['n2CNTRL/b', 'n3CNTRL:4096']);
    fake.peers = [];
    expect((await source.scan(never)).candidates).toEqual([]);
  });

  it('asks a refusing peer with growing pauses, and at once when it comes online', async () => {
    const clock = movedClock();
    const { source, fake } = await enter({ peers: [{ Online: false }], options: { ports: [] }, clock });
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
  });

  it('hints when a node service lists something new', async () => {
    const { source, serve, fake, requests } = await enter(TWO);
    await source.scan(never);
    const abort = new AbortController();
    const hints = source.changes(abort.signal)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first hint');
    await fake.busOpened;
    await serve('100.64.0.2:4095', listing(listed('c')));
    requests.length = 0;
    await until('the list to be asked for without a scan', () => requests.length > 0);
    await until('the new instance', async () => {
      await within(hints.next(), 'a hint');
      return (await source.scan(never)).candidates.some(({ key }) => key === 'n2CNTRL/c');
    });
    abort.abort();
  });

  it('does not wait for a silent peer longer than its budget', async () => {
    const answered = deferred<void>();
    const clock: Clock = {
      ...systemClock,
      // The budget of the scan ends once the silent peer is asked;
      // requests to the peer never time out.
      sleep: (ms, signal) => (ms === PEERS_BUDGET_MS ? answered.promise : systemClock.sleep(1000 * ms, signal)),
    };
    const { source } = await enter({
      ...TWO,
      clock,
      servers: { ...TWO.servers, '100.64.0.2:4095': () => answered.resolve() },
    });
    await within(source.scan(never), 'the scan');
  });

  it('does not let a silent peer delay the changes of another', async () => {
    let isLater = false;
    const clock: Clock = {
      ...systemClock,
      // Only the budget of later scans ends.
      sleep: (ms, signal) =>
        isLater && ms === LATER_BUDGET_MS ? Promise.resolve() : systemClock.sleep(1000 * ms, signal),
    };
    const { source, serve } = await enter({ ...TWO, clock });
    expect((await source.scan(never)).candidates).toHaveLength(3);
    isLater = true;
    await serve('100.64.0.2:4095', () => {});
    expect((await within(source.scan(never), 'the scan')).candidates).toHaveLength(3);
  });

  it('aborts held requests when tailscaled is stopped, because they may hang', async () => {
    let held: ServerResponse | undefined;
    const { source, fake } = await enter({
      peers: [{}],
      options: { ports: [] },
      servers: {
        '100.64.0.2:4095': ({ headers }, response) => {
          response.setHeader('etag', '"1"');
          if (headers['prefer'] === undefined) json(response, JSON.stringify(listing(listed('a'))));
          else held = response;
        },
      },
    });
    const hints = source.changes(never)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first hint');
    await source.scan(never);
    const before = await until('a request to be held', () => held);
    fake.status = { TUN: false, BackendState: 'NeedsLogin' };
    await expect(source.scan(never)).rejects.toThrow();
    await until('it to be given up', () => before.destroyed);
  });

  it('hints at changes found by a scan that then failed', async () => {
    const clock: Clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(1000 * ms, signal) };
    const { source, fake, requests } = await enter({
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
    ['Stopped', 'run tailscale up'],
    ['Starting', 'still starting'],
  ])('fails with advice while tailscaled is in %s', async (BackendState, message) => {
    const { source } = await enter({ ...TWO, status: { BackendState } });
    await expect(source.scan(never)).rejects.toMatchObject({
      kind: 'stopped',
      message: expect.stringContaining(message) as unknown,
    });
  });
});

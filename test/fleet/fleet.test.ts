import { describe, expect, test } from 'vitest';

import { MAX_MISSED_ROUNDS } from '../../src/fleet/endpoint-record.ts';
import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import { HINT_WINDOW_MS } from '../../src/discovery/chain.ts';
import { until } from '../rig/wait.ts';
import { settle } from './manual-clock.ts';
import { DEADLINE_MS, INTERVAL_MS, World } from './world.ts';

describe('starting', () => {
  test('a new fleet does nothing until it is started, and starting does not wait', async () => {
    await using world = new World();
    await settle();
    expect([world.source.scans, world.clock.due()]).toEqual([0, 0]);
    world.register('a', await world.fake());
    world.fleet.start();
    world.fleet.start();
    expect(world.listed()).toEqual([]);
    await world.fleet.ready();
    expect(world.listed()).toEqual(['a idle']);
    expect(world.source.scans).toBe(1);
  });

  test('ready() waits for the first round, but not longer than a health deadline', async () => {
    await using world = new World({ slots: 1 });
    for (const key of ['a', 'b', 'c', 'd', 'e']) {
      const fake = await world.fake();
      fake.override('GET /global/health', { kind: 'hang' });
      world.register(key, fake);
    }
    world.fleet.start();
    let ready = false;
    const waiting = world.fleet.ready().then(() => (ready = true));
    await world.clock.advance(DEADLINE_MS - 1);
    expect(ready).toBe(false);
    await world.clock.advance(1);
    await waiting;
  });
});

describe('registrations', () => {
  test('a new registration is probed immediately, and listed once its server answers, long before the next poll', async () => {
    await using world = new World();
    await world.start();
    const fake = await world.fake({ directory: '/home/user/a' });
    fake.state.statuses.set('ses_1', { type: 'busy' });
    world.register('a', fake, { claims: { localPort: fake.port } });
    await world.clock.advance(HINT_WINDOW_MS);
    const beforeMs = world.clock.now();
    world.source.notify();
    await world.quiet();
    expect(world.clock.now()).toBe(beforeMs);
    expect(world.instance('a')).toMatchObject({
      host: 'box',
      state: 'busy',
      directory: '/home/user/a',
      lastSeenMs: beforeMs,
      overview: { activity: { kind: 'busy' }, waiting: [], askedAtMs: beforeMs },
    });
  });

  test('a registration whose server has not answered yet is counted, not listed, so that it takes no name', async () => {
    await using world = new World();
    const fake = await world.fake();
    fake.override('GET /global/health', { kind: 'hang' });
    world.register('a', fake);
    world.fleet.start();
    await settle();
    expect(world.fleet.snapshot()).toMatchObject({
      instances: [],
      notes: [
        { source: 'directory', subject: '1 new registration', reason: expect.stringContaining('not listed yet') },
      ],
    });
  });

  test('a new registration whose probe timed out is probed again soon, a few times', async () => {
    await using world = new World();
    const [slow, dead] = await Promise.all([world.fake(), world.fake()]);
    slow.override('GET /global/health', { kind: 'hang' }, 2);
    dead.override('GET /global/health', { kind: 'hang' });
    world.register('slow', slow);
    world.register('dead', dead);
    const startMs = world.clock.now();
    world.fleet.start();
    await until('both probes to arrive', () => slow.load.current + dead.load.current === 2);
    await world.clock.advance((DEADLINE_MS * 7) / 8);
    expect(world.listed()).toEqual(['dead offline', 'slow offline']);
    await world.clock.advance(2000);
    await until('the slow one to be listed', () => world.listed()[1] === 'slow idle');
    while (world.clock.now() < startMs + INTERVAL_MS - 10_000) await world.clock.advance(5000);
    // Two probes for each new one; then one for the slow one, and three times two for the dead one.
    expect(world.fleet.counters.probes).toBe(2 + 2 + 1 + 6);
  });

  test('a registration is probed again soon after a temporary failure, whether it is new or known', async () => {
    await using world = new World();
    const fake = await world.fake();
    const busy = { kind: 'answer', status: 503, body: {} } as const;
    fake.override('GET /global/health', busy, 1);
    world.register('a', fake);
    await world.start();
    expect(world.listed()).toEqual(['a offline']);
    await world.clock.advance(2000);
    await until('the instance to be listed as idle', () => world.listed()[0] === 'a idle');
    fake.override('GET /global/health', busy, 2);
    await world.fleet.refresh();
    expect(world.listed()).toEqual(['a offline']);
    const before = world.fleet.counters.probes;
    await world.clock.advance(2000);
    await until('the first probe', () => world.fleet.counters.probes === before + 1);
    await world.quiet();
    await world.clock.advance(5000);
    await until('the instance to be listed as idle again', () => world.listed()[0] === 'a idle');
  });

  test('a registration whose server refuses connections is probed again only by the next round', async () => {
    await using world = new World();
    const fake = await world.startWith('a');
    await fake.close();
    await world.fleet.refresh();
    expect(world.listed()).toEqual(['a offline']);
    const before = world.fleet.counters.probes;
    await world.clock.advance(20_000);
    expect(world.fleet.counters.probes).toBe(before);
  });

  test('a removed registration is gone immediately, with the reason and the time of its last answer', async () => {
    await using world = new World();
    await world.startWith('a', { directory: '/home/user/a' });
    expect(world.listed()).toEqual(['a idle']);
    // It answers once more, and no snapshot is taken then.
    await world.round();
    const seenMs = world.clock.now();
    await world.clock.advance(1000);
    world.source.candidates.clear();
    await world.announce();
    const reason = 'it is no longer registered';
    const gone = [{ name: 'a', host: 'box', directory: '/home/user/a', lastSeenMs: seenMs, reason }];
    expect(world.fleet.snapshot()).toMatchObject({ instances: [], gone });
    expect(() => world.fleet.resolve('a')).toThrow('a (box, /home/user/a) is gone: it is no longer registered');
    await world.round();
    expect(world.fleet.snapshot().gone).toMatchObject(gone);
  });

  test('a registration that is removed before a slot is free is never probed', async () => {
    await using world = new World({ slots: 1 });
    const [hung, waiting] = await Promise.all([world.fake(), world.fake()]);
    hung.override('GET /global/health', { kind: 'hang' });
    world.register('a', hung);
    world.register('b', waiting);
    world.fleet.start();
    await until('the slot to be taken', () => hung.load.current === 1);
    world.source.candidates.delete('b');
    await world.announce();
    await world.clock.advance((DEADLINE_MS * 7) / 8);
    await world.quiet();
    expect(waiting.count('GET /global/health')).toBe(0);
  });

  test('a registration that moves to another port keeps its name, and is unknown until its server answers there', async () => {
    await using world = new World();
    await world.startWith('a');
    expect(world.listed()).toEqual(['a idle']);
    const moved = await world.fake();
    moved.override('GET /global/health', { kind: 'hang' });
    world.register('a', moved);
    await world.announce();
    expect(world.listed()).toEqual(['a unknown']);
  });

  test('an untrusted registration is listed with the reason, cannot be reached, and is never sent a request', async () => {
    await using world = new World();
    const fake = await world.startWith('a', undefined, {
      trust: { level: 'untrusted', reason: 'the folder is writable by others' },
    });
    await world.fleet.survey();
    await world.fleet.refresh();
    await world.round();
    expect(world.fleet.snapshot().instances).toMatchObject([
      { name: 'a@box', state: 'untrusted', reason: 'the folder is writable by others' },
    ]);
    await expect(world.fleet.reach(world.instance('a@box'))).rejects.toThrow('the folder is writable by others');
    expect(fake.count('GET /global/health')).toBe(0);
  });

  test('a source that fails keeps its instances, and shows the reason', async () => {
    await using world = new World();
    await world.startWith('a');
    world.source.answer = () => Promise.reject(new Error('EIO'));
    await world.round();
    expect(world.listed()).toEqual(['a idle']);
    expect(world.fleet.snapshot().sources).toMatchObject([
      { name: 'test', status: 'failed', reason: 'EIO', candidates: 1 },
    ]);
  });

  test('notes of sources and of contradicting registrations are in the snapshot', async () => {
    await using world = new World();
    const fake = await world.fake();
    world.register('old', fake, { claims: { connectedAt: 1 } });
    world.register('new', fake, { claims: { connectedAt: 2 } });
    const candidates = [...world.source.candidates.values()];
    world.source.answer = async () => ({ candidates, notes: [{ subject: 'x.json', reason: 'not JSON' }] });
    await world.start();
    expect(world.listed()).toEqual(['new idle']);
    expect(world.fleet.snapshot().notes).toEqual([
      { source: 'test', subject: 'x.json', reason: 'not JSON' },
      {
        source: 'directory',
        subject: 'old',
        reason: expect.stringContaining('new is registered for the same address'),
      },
    ]);
  });
});

describe('an instance that stops answering', () => {
  test('is listed as offline with the reason and its last answer, is gone after five missed rounds, and is listed again when it answers', async () => {
    await using world = new World();
    const proxy = await world.tunnelTo(await world.fake({ directory: '/home/user/a' }));
    world.register('a', proxy);
    await world.start();
    const seenMs = world.clock.now();
    await proxy.down();
    for (let missed = 1; missed < MAX_MISSED_ROUNDS; missed += 1) {
      await world.round();
      // Surveys and refreshes of tool calls are not missed rounds.
      await world.fleet.survey();
      await world.fleet.refresh();
      expect(world.instance('a')).toMatchObject({
        state: 'offline',
        reason: expect.stringContaining('ECONNREFUSED'),
        lastSeenMs: seenMs,
        directory: '/home/user/a',
        overview: { activity: { kind: 'idle' }, askedAtMs: seenMs },
      });
    }
    await world.round();
    expect(world.fleet.snapshot()).toMatchObject({
      instances: [],
      gone: [{ name: 'a', lastSeenMs: seenMs, reason: expect.stringContaining('it did not answer for 5 rounds (GET') }],
      notes: [{ source: 'directory', subject: '1 registration', reason: expect.stringMatching(/5 rounds .*: a$/) }],
    });
    await proxy.up();
    await world.round();
    expect(world.listed()).toEqual(['a idle']);
    expect(world.fleet.snapshot()).toMatchObject({ gone: [], notes: [] });
  });

  test('stays listed if it is in the config file, even if it never answered', async () => {
    await using world = new World();
    const fake = await world.fake();
    await fake.close();
    world.register('a', fake, { pinned: true });
    world.fleet.start();
    await settle();
    expect(world.listed()).toEqual([expect.stringMatching(/^a (unknown|offline)$/)]);
    for (let missed = 0; missed <= MAX_MISSED_ROUNDS; missed += 1) await world.round();
    expect(world.listed()).toEqual(['a offline']);
    expect(world.fleet.snapshot()).toMatchObject({ gone: [], notes: [] });
  });

  test('is listed as offline for five rounds and then only counted, if it never answered', async () => {
    await using world = new World();
    const fake = await world.fake();
    await fake.close();
    for (let index = 0; index < 12; index += 1) world.register(`dead-${index}`, { url: `${fake.url}/${index}` });
    await world.start();
    expect(world.listed()).toHaveLength(12);
    for (let missed = 0; missed < MAX_MISSED_ROUNDS; missed += 1) await world.round();
    const { instances, notes } = world.fleet.snapshot();
    expect(instances).toEqual([]);
    expect(notes).toEqual([
      { source: 'directory', subject: '12 registrations', reason: expect.stringMatching(/: dead-0, .* and 2 more$/) },
    ]);
  });
});

describe('two endpoints of one instance', () => {
  async function registerTwoEndpoints(world: World) {
    const fake = await world.fake({ directory: '/home/user/a' });
    const tunnel = await world.tunnelTo(fake);
    const claims = { id: 'x', localPort: fake.port };
    world.register('a', fake, { claims });
    world.register('r', tunnel, { route: 'relay', claims: { ...claims, name: 'a' } });
    world.fleet.start();
    await world.fleet.ready();
    return { fake, tunnel };
  }

  const endpoints = (world: World): string[] =>
    world.fleet
      .snapshot()
      .instances.map(({ name, server }) => [name, ...server.endpoints.map(({ candidate }) => candidate.key)].join(' '));

  test('are one entry in every list, also while one endpoint is down, and are proven again when it is back', async () => {
    await using world = new World();
    const { tunnel, fake } = await registerTwoEndpoints(world);
    expect(endpoints(world)).toEqual(['a a r']);
    await tunnel.down();
    await world.round();
    expect(endpoints(world)).toEqual(['a a r']);
    await tunnel.up();
    const before = fake.count('POST /session/:id/abort');
    await world.round();
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('a new proof', () => endpoints(world).length === 1);
    expect(endpoints(world)).toEqual(['a a r']);
    expect(fake.count('POST /session/:id/abort')).toBe(before + 1);
  });

  test('are one entry with one name while the faster endpoint flaps, and the stable endpoint is preferred', async () => {
    await using world = new World();
    const { proxy: direct } = await world.startWithTwoEndpoints();
    await world.clock.advance(REVIEW_DELAY_MS);
    expect(endpoints(world)).toEqual(['a a r']);
    for (let flap = 0; flap < 3; flap += 1) {
      await direct.down();
      await world.round();
      expect(endpoints(world)).toEqual(['a r a']);
      await direct.up();
      await world.round();
      await world.clock.advance(REVIEW_DELAY_MS);
      await until('a new proof', () => endpoints(world)[0]?.split(' ').length === 3);
      expect(endpoints(world)).toEqual(['a r a']);
    }
  });

  test('are two entries if a new proof fails, also after one endpoint was down again', async () => {
    await using world = new World();
    const { tunnel, fake } = await registerTwoEndpoints(world);
    await tunnel.down();
    await world.round();
    expect(endpoints(world)).toEqual(['a a r']);
    fake.override('GET /global/event', { kind: 'hang' });
    await tunnel.up();
    await world.round();
    // The tunnel is not listed as a separate entry before the new proof has ended.
    expect(endpoints(world)).toEqual(['a a']);
    await world.clock.advance(REVIEW_DELAY_MS);
    await until(
      'the proof to be tried',
      () => tunnel.count({ path: '/global/event' }) + fake.count('GET /global/event') > 1,
    );
    await world.clock.advance(DEADLINE_MS);
    expect(endpoints(world).map((line) => line.split(' ').slice(1))).toEqual([['a'], ['r']]);
    await tunnel.down();
    await world.round();
    expect(endpoints(world).map((line) => line.split(' ').slice(1))).toEqual([['a'], ['r']]);
  });

  test('are not joined by an old proof once an address is registered for another instance', async () => {
    await using world = new World();
    const { tunnel } = await registerTwoEndpoints(world);
    world.source.candidates.delete('r');
    await world.announce();
    expect(endpoints(world)).toEqual(['a a']);
    await tunnel.down();
    await world.add('other', tunnel, { route: 'relay' });
    expect(endpoints(world)).toEqual(['a a', 'other other']);
  });

  test('are proven as soon as the second endpoint answers, without waiting for a round', async () => {
    await using world = new World();
    const fake = await world.fake();
    const tunnel = await world.tunnelTo(fake);
    world.register('a', fake, { claims: { id: 'x' } });
    await world.start();
    tunnel.rule({}, { kind: 'hold', gate: 'open' });
    world.register('r', tunnel, { route: 'relay', claims: { id: 'x' } });
    await world.announce();
    await tunnel.waitForRequest({ path: '/global/health' });
    await world.clock.advance(REVIEW_DELAY_MS);
    tunnel.pass();
    tunnel.release('open');
    await world.quiet();
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof', () => endpoints(world)[0] === 'a a r');
  });

  test('are proven when a later registration suggests that they are one instance', async () => {
    await using world = new World();
    const fake = await world.fake();
    const tunnel = await world.tunnelTo(fake);
    world.register('a', fake, { claims: { localPort: 1 } });
    world.register('r', tunnel, { route: 'relay', claims: { localPort: 1, hostname: 'unknown' } });
    await world.start();
    await world.clock.advance(REVIEW_DELAY_MS);
    expect(endpoints(world)).toEqual(['a a', 'r r']);
    world.register('r', tunnel, { route: 'relay', claims: { localPort: 1 } });
    await world.announce();
    await until('the proof', () => endpoints(world)[0] === 'a a r');
  });

  test('are tested again by later rounds after a proof without an answer', async () => {
    await using world = new World();
    const fake = await world.fake();
    const tunnel = await world.tunnelTo(fake);
    world.register('a', fake, { claims: { id: 'x' } });
    world.register('r', tunnel, { route: 'relay', claims: { id: 'x' } });
    fake.override('POST /session/:id/abort', { kind: 'answer', body: true });
    world.fleet.start();
    await until('the proof to be tried', () => fake.count('POST /session/:id/abort') === 1);
    await world.clock.advance(DEADLINE_MS);
    expect(endpoints(world)).toEqual(['a a', 'r r']);
    fake.override('POST /session/:id/abort', undefined);
    await world.round();
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof', () => endpoints(world)[0] === 'a a r');
  });

  test('delay the first list only briefly while their proof has no answer', async () => {
    await using world = new World();
    const claims = { id: 'x', localPort: 1 };
    const [one, other] = await Promise.all([world.fake(), world.fake()]);
    world.register('a', one, { claims });
    world.register('b', other, { claims });
    world.fleet.start();
    let ready = false;
    const waiting = world.fleet.ready().then(() => (ready = true));
    await until('the proof to be tried', () => one.openStreams + other.openStreams === 1);
    await world.clock.advance(DEADLINE_MS / 4 - 1);
    expect(ready).toBe(false);
    await world.clock.advance(1);
    await waiting;
    expect(world.listed()).toEqual(['a idle', 'b idle']);
  });
});

describe('changes', () => {
  test('are reported shortly afterwards, once for a whole survey; a caller of changed() is woken while the survey runs', async () => {
    const seen: string[][] = [];
    await using world = new World({ onChange: () => seen.push(world.listed()) });
    const [fake, slow] = await Promise.all([world.fake(), world.fake()]);
    world.register('a', fake);
    world.register('b', slow);
    await world.start();
    await world.clock.advance(1000);
    expect(seen.at(-1)).toEqual(['a idle', 'b idle']);
    const before = seen.length;
    fake.state.statuses.set('ses_1', { type: 'busy' });
    slow.override('GET /path', { kind: 'hang' }, 1);
    const results: string[] = [];
    const caller = new AbortController();
    void world.fleet.changed(new AbortController().signal).then(() => results.push('changed'));
    void world.fleet.changed(caller.signal).then(() => results.push('aborted'));
    caller.abort();
    const surveying = world.fleet.survey();
    await until('the first instance to be listed as busy', () => world.listed()[0] === 'a busy');
    expect(results).toEqual(['aborted']);
    await world.clock.advance(1000);
    expect([results, seen.length]).toEqual([['aborted', 'changed'], before]);
    await world.clock.advance(DEADLINE_MS);
    await surveying;
    await world.clock.advance(1000);
    expect(seen.slice(before)).toEqual([['a busy', 'b idle']]);
  });

  test('of membership are reported immediately', async () => {
    let seen: string[] = [];
    await using world = new World({
      onPresence: () => (seen = world.listed()),
    });
    await world.startWith('a');
    expect(seen).toEqual(['a idle']);
    world.source.candidates.delete('a');
    await world.fleet.refresh();
    expect(seen).toEqual([]);
  });
});

describe('closing', () => {
  test('ends every timer, request and stream, and may be repeated', async () => {
    await using world = new World();
    const [fake, hung] = await Promise.all([world.fake(), world.fake()]);
    hung.override('GET /global/health', { kind: 'hang' });
    world.register('a', fake);
    world.register('b', hung);
    world.fleet.start();
    await until('the hanging probe to arrive', () => hung.load.current === 1);
    const pending = [world.fleet.ready(), world.fleet.survey(), world.fleet.refresh()];
    await Promise.all([world.fleet.close(), world.fleet.close()]);
    await Promise.all(pending);
    expect(world.clock.due()).toBe(0);
    await until('the requests to end', () => fake.load.current + hung.load.current + fake.openStreams === 0);
    const { scans } = world.source;
    world.source.notify();
    await world.clock.advance(10 * INTERVAL_MS);
    expect(world.source.scans).toBe(scans);
  });

  test('keeps the last snapshot and sends no more requests', async () => {
    await using world = new World();
    await world.startWith('a');
    const instance = world.instance('a');
    await world.fleet.close();
    const before = world.fleet.counters.requests;
    await world.fleet.survey();
    await world.fleet.refresh();
    await world.fleet.ready();
    expect(world.listed()).toEqual(['a idle']);
    await expect(world.fleet.reach(instance)).rejects.toThrow('Probing a was cancelled');
    expect(world.fleet.counters.requests).toBe(before);
  });

  test('works on a fleet that was never started', async () => {
    await using world = new World();
    await world.fleet.close();
    world.fleet.start();
    await world.fleet.ready();
    expect(world.source.scans).toBe(0);
  });
});

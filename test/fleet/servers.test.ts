import { describe, expect, test } from 'vitest';

import type { FakeOpencode } from '../rig/fake/fake-opencode.ts';
import type { FakeSession } from '../rig/fake/fake-objects.ts';
import { REVIEW_DELAY_MS } from '../../src/fleet/fleet.ts';
import { until } from '../rig/wait.ts';
import { World } from './world.ts';

const MINUTE = 60_000;
const OWN = '/home/ada/app';

/** Adds a session last used `minutes` ago; it runs if `busy`. */
function addSession(fake: FakeOpencode, directory: string, { minutes = 0, busy = false } = {}): FakeSession {
  const updated = Date.now() - minutes * MINUTE;
  const made = fake.addSession({ directory, time: { created: updated, updated } });
  if (busy) fake.state.statuses.set(made.id, { type: 'busy' });
  return made;
}

async function listed(world: World): Promise<string[]> {
  const { instances } = await world.fleet.survey();
  return instances.map(({ name, state, directory }) => `${name} ${state} ${directory}`);
}

async function startServer(world: World, name: string, directory = OWN): Promise<FakeOpencode> {
  const fake = await world.fake({ directory });
  world.register(name, fake, { claims: { name, hostname: 'Laptop.local' } });
  return fake;
}

/** Starts a server that works in `/wt/fix`, with both of its directories listed. */
async function startWorkingServer() {
  const world = new World();
  const fake = await startServer(world, 'Laptop-app');
  const work = addSession(fake, '/wt/fix', { busy: true });
  await world.start();
  expect(await listed(world)).toEqual([`Laptop-app idle ${OWN}`, 'Laptop-fix busy /wt/fix']);
  return { world, fake, work, [Symbol.asyncDispose]: () => world[Symbol.asyncDispose]() };
}

/** Sets the last use of the session to `minutes` ago. */
function setLastUse(fake: FakeOpencode, work: FakeSession, minutes: number): void {
  fake.state.sessions.set(work.id, { ...work, time: { created: 1, updated: Date.now() - minutes * MINUTE } });
}

describe('the instance of a directory in which a server works', () => {
  test('is named like a registration of that directory, or after the chosen name', async () => {
    await using world = new World();
    for (const name of ['Laptop-app', 'chosen']) {
      const fake = await startServer(world, name);
      addSession(fake, `${OWN}-wt`, { busy: true });
    }
    await world.start();
    expect(await listed(world)).toEqual([
      `Laptop-app idle ${OWN}`,
      `Laptop-app-wt busy ${OWN}-wt`,
      `chosen idle ${OWN}`,
      `chosen-app-wt busy ${OWN}-wt`,
    ]);
  });

  test('is named after the shortest unique ending of its path, if the last parts are equal', async () => {
    await using world = new World();
    const fake = await startServer(world, 'Laptop-app');
    for (const directory of ['/wt/one/app', '/wt/two/app', '/srv/two/app', 'C:\\work\\web'])
      addSession(fake, directory, { busy: true });
    await world.start();
    const names = (await listed(world)).map((row) => row.split(' ')[0]);
    expect(names).toEqual(['Laptop-app', 'Laptop-one-app', 'Laptop-srv-two-app', 'Laptop-web', 'Laptop-wt-two-app']);
  });

  test('is listed while work is seen there and ten minutes after; its name stays callable', async () => {
    await using stage = await startWorkingServer();
    const { world, fake, work } = stage;
    addSession(fake, '/wt/idle');
    const own = `Laptop-app idle ${OWN}`;
    fake.state.statuses.clear();
    expect(await listed(world)).toEqual([own, 'Laptop-fix idle /wt/fix']);
    setLastUse(fake, work, 11);
    expect(await listed(world)).toEqual([own]);
    const resting = world.fleet.resolve('Laptop-fix');
    expect(resting).toMatchObject({ name: 'Laptop-fix', directory: '/wt/fix', state: 'unknown' });
    expect(await world.fleet.reach(resting)).toMatchObject({ directory: '/wt/fix', serverDirectory: OWN });
    // It works again under the same name, which no other directory has taken.
    fake.state.statuses.set(work.id, { type: 'busy' });
    fake.state.sessions.set(work.id, work);
    addSession(fake, '/other/fix', { busy: true });
    expect(await listed(world)).toEqual([own, 'Laptop-fix busy /wt/fix', 'Laptop-other-fix busy /other/fix']);
  });

  test('is offline while its server is offline', async () => {
    await using stage = await startWorkingServer();
    const { world, fake } = stage;
    fake.override('GET /path', { kind: 'answer', status: 500 });
    expect(await listed(world)).toEqual([`Laptop-app offline ${OWN}`, 'Laptop-fix offline /wt/fix']);
    fake.override('GET /path', undefined);
    expect(await listed(world)).toEqual([`Laptop-app idle ${OWN}`, 'Laptop-fix busy /wt/fix']);
  });

  test('is listed for at least 25 directories of a server; the unchecked ones are counted', async () => {
    await using world = new World();
    const fake = await startServer(world, 'Laptop-app');
    for (let index = 0; index < 25; index += 1) addSession(fake, `/wt/w${index}`, { busy: true });
    await world.start();
    expect((await listed(world)).filter((row) => row.includes(' busy '))).toHaveLength(25);
    for (let index = 25; index < 40; index += 1) addSession(fake, `/wt/w${index}`, { busy: true });
    await listed(world);
    const { notes } = world.fleet.snapshot();
    expect(notes.map(({ subject, reason }) => `${subject}: ${reason}`)).toEqual([
      expect.stringContaining('Laptop-app: 8 more directories'),
    ]);
  });
});

describe('which directories a survey queries, since a query loads the plugins of the directory', () => {
  test("another server's own directory is queried only after a call to it", async () => {
    await using world = new World();
    const [one, other] = [await startServer(world, 'one'), await startServer(world, 'other', '/home/ada/web')];
    addSession(one, '/home/ada/web');
    addSession(other, OWN);
    await world.start();
    const statusRequests = (): number[] => [one, other].map((fake) => fake.count('GET /session/status'));
    const [before = 0, otherBefore = 0] = statusRequests();
    expect(await listed(world)).toEqual([`one idle ${OWN}`, 'other idle /home/ada/web']);
    expect(statusRequests()).toEqual([before + 1, otherBefore + 1]);
    // Our own turn runs there through this server: listed only while it runs.
    const { id } = addSession(one, '/home/ada/web', { busy: true });
    world.fleet.worksIn(await world.fleet.reach(world.instance('one')), { id, directory: '/home/ada/web' });
    expect(await listed(world)).toEqual([`one idle ${OWN}`, 'one-web busy /home/ada/web', 'other idle /home/ada/web']);
    one.state.statuses.delete(id);
    expect(await listed(world)).toEqual([`one idle ${OWN}`, 'other idle /home/ada/web']);
  });

  test('at most 32 directories are queried because of calls to them', async () => {
    await using world = new World();
    const fake = await startServer(world, 'one');
    await world.start();
    const reached = await world.fleet.reach(world.instance('one'));
    for (let index = 0; index < 40; index += 1)
      world.fleet.worksIn(reached, { id: `ses_${index}`, directory: `/wt/w${index}` });
    await listed(world);
    expect(fake.count('GET /session/:id')).toBe(32);
  });

  test("a project's worktree is queried only through a server of that project, if there is one", async () => {
    await using world = new World();
    const [app, web] = [await startServer(world, 'app'), await startServer(world, 'web', '/home/ada/web')];
    // The servers share a home, so both list the sessions of both projects, and of a third without a server.
    for (const fake of [app, web])
      for (const [directory, projectID] of [
        [OWN, 'project-app'],
        ['/home/ada/web', 'project-web'],
        ['/wt/app-fix', 'project-app'],
        ['/srv/other', 'project-other'],
        ['/tmp', 'global'],
      ] as const)
        fake.addSession({ directory, projectID });
    await world.start();
    const statusRequests = (): number[] => [app, web].map((fake) => fake.count('GET /session/status'));
    const before = statusRequests();
    await listed(world);
    // Both servers: two own directories and the third project. Only the worktree's own server: the worktree.
    expect(statusRequests().map((count, index) => count - (before[index] ?? 0))).toEqual([4, 3]);
  });

  test("the ten minutes since the last use are measured by the server's clock, which may be hours behind", async () => {
    await using world = new World();
    const fake = await startServer(world, 'Laptop-app');
    addSession(fake, '/wt/fix', { minutes: 120, busy: true });
    const sessions = [...fake.state.sessions.values()];
    const date = new Date(Date.now() - 120 * MINUTE).toUTCString();
    fake.override('GET /experimental/session', { kind: 'answer', headers: { date }, body: sessions });
    await world.start();
    expect(await listed(world)).toEqual([`Laptop-app idle ${OWN}`, 'Laptop-fix busy /wt/fix']);
  });
});

describe('a known directory', () => {
  test('is in `asked` of a survey that queries it', async () => {
    await using stage = await startWorkingServer();
    const { world, fake, work } = stage;
    const asked = async (): Promise<readonly string[]> =>
      (await world.fleet.surveyServer({ instance: world.instance('Laptop-app') })).asked;
    expect(await asked()).toEqual(['/wt/fix']);
    fake.state.statuses.clear();
    setLastUse(fake, work, 11);
    await listed(world);
    expect(await asked()).toEqual([]);
  });

  test('stays known after the endpoint that found it is gone, even if its session is unused for long', async () => {
    await using world = new World();
    const fake = await startServer(world, 'prod');
    const tunnel = await world.tunnelTo(fake);
    world.register('prod', fake, { claims: { id: 'p', hostname: 'laptop' } });
    world.register('relayed', tunnel, { route: 'relay', claims: { id: 'p', name: 'prod', hostname: 'laptop' } });
    const work = addSession(fake, '/wt/fix', { busy: true });
    await world.start();
    await world.clock.advance(REVIEW_DELAY_MS);
    await until('the proof', () => world.instance('prod').server.endpoints.length === 2);
    expect(await listed(world)).toContain('prod-fix busy /wt/fix');
    setLastUse(fake, work, 20);
    world.source.candidates.delete('prod');
    await world.announce();
    await world.quiet();
    expect(world.listed()).toContain('prod-fix busy');
    expect(await listed(world)).toContain('prod-fix busy /wt/fix');
    expect(await listed(world)).toContain('prod-fix busy /wt/fix');
  });

  test('is not queried in another process with the same address and own directory', async () => {
    await using stage = await startWorkingServer();
    const { world, fake, work } = stage;
    // Another home: it has none of these sessions.
    fake.state.sessions.delete(work.id);
    fake.state.statuses.clear();
    const before = fake.count('GET /session/status');
    expect(await listed(world)).toEqual([`Laptop-app idle ${OWN}`]);
    expect(fake.count('GET /session/status') - before).toBe(1);
    const resting = world.fleet.resolve('Laptop-fix');
    await expect(world.fleet.reach(resting)).rejects.toThrow(/Laptop-fix.*cannot be driven.*no session in/s);
  });

  test('stays reachable as long as it has any session', async () => {
    await using stage = await startWorkingServer();
    const { world, fake, work } = stage;
    addSession(fake, '/wt/fix', { minutes: 30 });
    fake.state.sessions.delete(work.id);
    fake.state.statuses.clear();
    expect(await world.fleet.reach(world.instance('Laptop-fix'))).toMatchObject({ directory: '/wt/fix' });
    expect(await listed(world)).toEqual([`Laptop-app idle ${OWN}`]);
    expect(await world.fleet.reach(world.fleet.resolve('Laptop-fix'))).toMatchObject({ directory: '/wt/fix' });
  });

  test('stays callable under its name when the server is started again', async () => {
    await using stage = await startWorkingServer();
    const { world, fake } = stage;
    world.source.candidates.clear();
    await world.announce();
    expect(() => world.fleet.resolve('Laptop-fix')).toThrow('is gone');
    const again = await world.fake({ directory: OWN });
    for (const one of fake.state.sessions.values()) again.addSession(one);
    const claims = { name: 'Laptop-app', hostname: 'Laptop.local', id: 'new' };
    await world.add('another file', again, { claims });
    const resting = world.fleet.resolve('Laptop-fix');
    expect(resting).toMatchObject({ name: 'Laptop-fix', directory: '/wt/fix', state: 'unknown' });
    expect(await world.fleet.reach(resting)).toMatchObject({ directory: '/wt/fix' });
  });

  test('is gone with its server if two others match it, since either could be the one that works there', async () => {
    await using stage = await startWorkingServer();
    const { world } = stage;
    world.source.candidates.clear();
    for (const id of ['one', 'two'])
      world.register(id, await world.fake({ directory: OWN }), {
        claims: { name: 'Laptop-app', hostname: 'Laptop.local', id },
      });
    await world.announce();
    await world.quiet();
    expect(() => world.fleet.resolve('Laptop-fix')).toThrow('is gone');
  });

  test('is named with its host and path in the error after its server ended', async () => {
    await using stage = await startWorkingServer();
    const { world, fake, work } = stage;
    fake.state.statuses.clear();
    setLastUse(fake, work, 20);
    await listed(world);
    world.source.candidates.clear();
    await world.announce();
    expect(() => world.fleet.resolve('Laptop-fix')).toThrow('(Laptop.local, /wt/fix) is gone');
  });
});

describe('work in a directory cannot be hidden', () => {
  test('by an untrusted claim to the directory, or by a long dead one', async () => {
    await using world = new World();
    const fake = await startServer(world, 'Laptop-app');
    addSession(fake, '/wt/lan', { busy: true });
    addSession(fake, '/wt/dead', { busy: true });
    const stranger = await world.fake({ directory: '/wt/lan' });
    const claims = { hostname: 'Laptop.local' };
    world.register('stranger', stranger, { route: 'lan', claims: { ...claims, directory: '/wt/lan' } });
    world.register('dead', { url: 'http://127.0.0.1:1' }, { claims: { ...claims, directory: '/wt/dead' } });
    await world.start();
    for (let round = 0; round < 5; round += 1) await world.round();
    const rows = await listed(world);
    expect(rows).toContain('Laptop-lan busy /wt/lan');
    expect(rows).toContain('Laptop-dead busy /wt/dead');
  });

  test('by many sub-agents that worked later', async () => {
    await using world = new World();
    const fake = await startServer(world, 'Laptop-app');
    addSession(fake, '/wt/fix', { minutes: 5, busy: true });
    const { id } = addSession(fake, OWN);
    for (let index = 0; index < 60; index += 1) fake.addSession({ directory: OWN, parentID: id });
    await world.start();
    expect(await listed(world)).toContain('Laptop-fix busy /wt/fix');
  });
});

test('two host names of a machine count as one when directories are assigned', async () => {
  await using world = new World();
  const [one, other] = [await world.fake({ directory: OWN }), await world.fake({ directory: '/home/ada/web' })];
  world.register('one', one, { claims: { hostname: 'laptop' } });
  world.register('other', other, { claims: { hostname: 'Laptop.local' } });
  addSession(one, '/home/ada/web');
  await world.start();
  const before = one.count('GET /session/status');
  await listed(world);
  expect(one.count('GET /session/status') - before).toBe(1);
});

test("work that looks interrupted in one server is looked for in the machine's other servers within the survey", async () => {
  await using world = new World();
  const [one, other] = [await startServer(world, 'one'), await startServer(world, 'other', '/home/ada/web')];
  const { id } = addSession(other, OWN);
  other.state.begin(id, 'do it');
  one.addSession({ ...other.state.sessions.get(id), id });
  one.state.messages.set(id, other.state.messages.get(id) ?? []);
  await world.start();
  expect(await listed(world)).toEqual([`one idle ${OWN}`, 'other idle /home/ada/web', `other-app busy ${OWN}`]);
  // The session no longer runs anywhere: its process was killed.
  other.state.statuses.clear();
  expect(await listed(world)).toContain(`one interrupted ${OWN}`);
});

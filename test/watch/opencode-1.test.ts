import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { assistantMessage } from '../rig/fake/fake-objects.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { until } from '../rig/wait.ts';
import { openWatchWorld, type WatchWorld } from './world.ts';

const DIRECTORY = '/home/user/project';
const WORKTREE = '/home/user/worktree';

let fake: FakeOpencode;
let world: WatchWorld;

beforeEach(async () => {
  fake = await startFakeOpencode({ directory: DIRECTORY });
  world = await openWatchWorld();
  await world.register('one', fake);
  await world.followed('one');
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  await fake.close();
});

function begin(fields: Parameters<FakeOpencode['addSession']>[0] = {}): string {
  const { id } = fake.addSession({ title: 'A title', ...fields });
  fake.state.begin(id, 'Go');
  return id;
}

/** Begins a turn, and waits until it is listed. */
async function beginBusy(): Promise<string> {
  const id = begin();
  await world.becomes(id, 'busy');
  return id;
}

/** Makes a session idle. */
function stop(id: string): void {
  fake.state.statuses.delete(id);
  fake.emit('session.idle', { sessionID: id });
}

/** Ends a turn as opencode does when the model fails. */
function fail(id: string, error: object): void {
  const messages = fake.state.messages.get(id) ?? [];
  const last = messages.pop();
  if (last === undefined) throw new Error('Expected a running turn, got none');
  messages.push({ ...last, info: { ...last.info, error, time: { ...last.info.time, completed: Date.now() } } });
  stop(id);
}

describe('a session', () => {
  test('is listed from the beginning of its turn to the end', async () => {
    const before = Date.now();
    const id = begin();
    const running = await world.becomes(id, 'busy');
    expect(running).toMatchObject({ id, title: 'A title', directory: DIRECTORY, waiting: [] });
    expect(running.turnBeganMs).toBeGreaterThanOrEqual(before);
    expect(running.sinceMs).toBe(running.turnBeganMs);
    fake.state.finish(id, 'Done');
    const ended = await world.becomes(id, 'idle');
    expect(ended).toMatchObject({ turnBeganMs: running.turnBeganMs, waiting: [] });
    expect(ended.reason).toBeUndefined();
  });

  test('waits with its request, and goes on', async () => {
    const id = begin();
    const { turnBeganMs } = await world.becomes(id, 'busy');
    const permission = fake.addPermission({ sessionID: id, metadata: { command: 'rm -rf build' } });
    const waiting = await world.becomes(id, 'waiting');
    expect(waiting).toMatchObject({
      turnBeganMs,
      waiting: [{ kind: 'permission', id: permission.id, sessionId: id, text: 'bash "rm -rf build"' }],
    });
    fake.state.settle(permission.id, 'permission.replied', { reply: 'once' });
    expect(await world.becomes(id, 'busy')).toMatchObject({ turnBeganMs, waiting: [] });
    fake.addQuestion({ sessionID: id });
    expect((await world.becomes(id, 'waiting')).waiting).toMatchObject([{ kind: 'question', text: 'Go on? Yes | No' }]);
  });

  test('that waits is listed even if more run than are followed', async () => {
    for (let more = 0; more < 70; more += 1) begin();
    const id = begin();
    const permission = fake.addPermission({ sessionID: id });
    expect((await world.becomes(id, 'waiting')).waiting).toMatchObject([{ id: permission.id }]);
  });

  test('that waits is listed even if its title cannot be read yet', async () => {
    fake.override('GET /session/:id', { kind: 'answer', status: 500 });
    const id = begin();
    fake.addPermission({ sessionID: id });
    expect(await world.becomes(id, 'waiting')).toMatchObject({ title: '', directory: DIRECTORY });
    fake.override('GET /session/:id', undefined);
    await until('its title', () => world.session(id)?.title === 'A title');
  });

  test('waits since its oldest open request', async () => {
    const id = begin();
    const first = fake.addPermission({ sessionID: id });
    const { sinceMs } = await world.becomes(id, 'waiting');
    const second = fake.addPermission({ sessionID: id });
    const asks = (ids: readonly string[]) =>
      until(`${ids.join()} to be asked`, () => {
        const found = world.session(id);
        return found?.waiting.map((one) => one.id).join() === ids.join() && found;
      });
    expect((await asks([first.id, second.id])).sinceMs).toBe(sinceMs);
    await until('a later moment', () => Date.now() > sinceMs);
    fake.state.permissions.clear();
    const third = fake.addPermission({ sessionID: id });
    expect((await asks([third.id])).sinceMs).toBeGreaterThan(sinceMs);
  });

  test('fails with the reason of opencode, quoted and bounded', async () => {
    const id = await beginBusy();
    fail(id, { name: 'APIError', data: { message: `No "credit"\u001b[31m left ${'x'.repeat(1000)}` } });
    const { reason = '' } = await world.becomes(id, 'failed');
    expect(reason).toMatch(/^opencode says "APIError: No 'credit' left x+…"$/);
    expect(reason.length).toBeLessThan(500);
  });

  test('fails with the reason of an event if no message has one', async () => {
    const { id } = fake.addSession();
    fake.state.ask(id, 'Go');
    fake.emit('session.error', { sessionID: id, error: { name: 'UnknownError', data: { message: 'no such model' } } });
    const failed = await world.becomes(id, 'failed');
    expect(failed.reason).toBe('opencode says "UnknownError: no such model"');
  });

  test('is stopped', async () => {
    const id = await beginBusy();
    fake.state.abort(id);
    expect(await world.becomes(id, 'interrupted')).toMatchObject({ reason: 'it was stopped', waiting: [] });
  });

  test('that is idle before its last message is complete does not count as interrupted', async () => {
    const id = await beginBusy();
    const states = new Set<string | undefined>();
    world.watcher.onChange(() => states.add(world.session(id)?.state));
    const asked = fake.count('GET /session/:id/message');
    stop(id);
    await until('its messages to be read', () => fake.count('GET /session/:id/message') > asked + 1);
    fake.state.finish(id, 'Done');
    await world.becomes(id, 'idle');
    expect([...states]).not.toContain('interrupted');
  });

  test('whose last message is never completed is interrupted', async () => {
    const id = await beginBusy();
    stop(id);
    expect((await world.becomes(id, 'interrupted')).reason).toContain('stopped in the middle');
  });

  test('retries beside another that does not', async () => {
    const [id, other] = [begin(), begin()];
    await world.becomes(other, 'busy');
    const retry = { type: 'retry', attempt: 2, message: 'Rate limit', next: 0 } as const;
    fake.state.statuses.set(id, retry);
    fake.emit('session.status', { sessionID: id, status: retry });
    expect((await world.becomes(id, 'retrying')).reason).toBe('attempt 2: opencode says "Rate limit"');
    expect(world.session(other)?.state).toBe('busy');
    fake.state.finish(other, 'Done');
    await world.becomes(other, 'idle');
    expect(world.session(id)?.reason).toBe('attempt 2: opencode says "Rate limit"');
    fake.state.statuses.set(id, { type: 'busy' });
    fake.emit('session.status', { sessionID: id, status: { type: 'busy' } });
    expect((await world.becomes(id, 'busy')).reason).toBeUndefined();
  });

  test('of a sub-agent has a parent, and requests of its own', async () => {
    const root = begin();
    const child = begin({ parentID: root, title: 'A sub-agent' });
    const { id } = fake.addPermission({ sessionID: child });
    const waiting = await world.becomes(child, 'waiting');
    expect(waiting).toMatchObject({ parentId: root, title: 'A sub-agent', waiting: [{ id, ofSubAgent: true }] });
    expect(await world.becomes(root, 'busy')).toMatchObject({ waiting: [] });
  });

  test('in another worktree of the same server', async () => {
    const id = begin({ directory: WORKTREE });
    fake.addPermission({ sessionID: id });
    expect(await world.becomes(id, 'waiting')).toMatchObject({ directory: WORKTREE });
    expect(world.server('one')?.instances.map(({ directory }) => directory)).toEqual([DIRECTORY, WORKTREE]);
    fake.state.finish(id, 'Done');
    await world.becomes(id, 'idle');
  });

  test('that runs in this server, in the directory of another', async () => {
    await using other = await startFakeOpencode({ directory: WORKTREE });
    await world.register('two', other);
    await world.followed('two');
    const id = begin({ directory: WORKTREE });
    const isBusy = () => world.server('one')?.sessions.some((one) => one.id === id && one.state === 'busy');
    await until('it to be listed', isBusy);
    expect(world.server('two')?.sessions).toEqual([]);
  });

  test('gets another title', async () => {
    const id = await beginBusy();
    const session = fake.state.sessions.get(id);
    if (session === undefined) throw new Error('Expected the session, got none');
    const renamed = { ...session, title: 'Another \u202etitle' };
    fake.state.sessions.set(id, renamed);
    fake.emit('session.updated', { sessionID: id, info: renamed });
    await until('its title', () => world.session(id)?.title === 'Another title');
  });

  test('is deleted', async () => {
    const id = await beginBusy();
    fake.state.statuses.delete(id);
    fake.state.removeSession(id);
    await until('it to be gone', () => world.session(id) === undefined);
  });

  test('that ended within the hour before the server was found is listed with its end', async () => {
    await using second = await startFakeOpencode({ directory: '/home/user/second' });
    const done = second.addSession({ title: 'Done' }).id;
    second.state.begin(done, 'Go');
    second.state.finish(done, 'Done');
    const cut = second.addSession({ title: 'Cut' }).id;
    second.state.begin(cut, 'Go');
    second.state.statuses.delete(cut);
    const old = Date.now() - 2 * 3_600_000;
    second.addSession({ title: 'Old', time: { created: old, updated: old } });
    await world.register('two', second);
    await world.followed('two');
    expect(await world.becomes(done, 'idle')).toMatchObject({ turnBeganMs: expect.any(Number) });
    await world.becomes(cut, 'interrupted');
    const titles = world.server('two')?.sessions.map(({ title }) => title);
    expect(titles?.toSorted()).toEqual(['Cut', 'Done']);
  });

  test('that began and ended between two surveys is listed as ended', async () => {
    const { id } = fake.addSession();
    fake.state.begin(id, 'Go');
    fake.state.finish(id, 'Done');
    await world.becomes(id, 'idle');
  });

  test('that runs in another server of the same home is not interrupted', async () => {
    await using other = await startFakeOpencode({ directory: WORKTREE });
    const id = await beginBusy();
    // They share a store, and only one of them runs it.
    const same = other.addSession({ id, title: 'A title' });
    other.state.messages.set(id, [...(fake.state.messages.get(id) ?? []), assistantMessage(id, 'msg_x', WORKTREE)]);
    await world.register('two', other);
    await world.followed('two');
    await until('its messages to be read there', () => other.count('GET /session/:id/message') > 0);
    expect(world.server('two')?.sessions.filter((one) => one.id === same.id)).toEqual([]);
    expect(world.session(id)?.state).toBe('busy');
  });
});

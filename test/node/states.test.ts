import { isDeepStrictEqual } from 'node:util';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { LIST_PATH, STATES_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import type { Listing } from '../../src/node/list/listing.ts';
import { type StatesListing, withStates } from '../../src/node/list/states.ts';
import type { WatchedServer } from '../../src/watch/contract.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { tailnetNode, whoisOf } from '../rig/fake/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import { CAPABILITY, type NodeStage, openNodeStage, OWN_LAPTOP, READER, STRANGER } from './stage.ts';

const PROJECT = '/home/user/project';
const WORKTREE = '/home/user/worktree';

let fake: FakeOpencode;
let stage: NodeStage;

async function openStage(): Promise<void> {
  fake = await startFakeOpencode({ directory: PROJECT });
  stage = await openNodeStage({ watch: true });
  await stage.registry.add({ name: 'two', id: 'two', port: fake.port, cwd: PROJECT });
  await until('the server to be followed', async () => (await states()).states.some(({ id }) => id === 'two'));
}
async function closeStage(): Promise<void> {
  await stage[Symbol.asyncDispose]();
  await fake.close();
}

async function states(from = OWN_LAPTOP): Promise<StatesListing> {
  const { status, text } = await stage.call(STATES_PATH, { from });
  if (status !== 200) throw new Error(`Expected the states, got HTTP ${status}: ${text}`);
  const listing: StatesListing = JSON.parse(text);
  return listing;
}

async function stateOf(id: string, from?: string): Promise<StatesListing['states'][number] | undefined> {
  return (await states(from)).states.find((state) => state.id === id);
}

/** Resolves once the watcher has repeated its requests after the stream opened, so that only a change answers a held request. */
const untilSettled = (): Promise<unknown> =>
  until('the repeated requests', () => fake.count('GET /session/status') >= 3);

describe('the states', () => {
  beforeEach(openStage);
  afterEach(closeStage);

  test('contain the list, which they do not change, and the state of each followed server', async () => {
    const before = await stage.call(LIST_PATH);
    const { id } = fake.addSession({ title: 'A title' });
    fake.state.begin(id, 'Go');
    const permission = fake.addPermission({ sessionID: id });
    await until(
      'the session to wait',
      async () => (await stateOf('two'))?.overviews[0]?.sessions?.[0]?.state === 'waiting',
    );
    const { states: found, ...list } = await states();
    const after = await stage.call(LIST_PATH);
    expect([after.text, after.headers.etag]).toEqual([before.text, before.headers.etag]);
    expect(list).toEqual(JSON.parse(after.text));
    // The stage's own instance has no event stream.
    expect(found.map((server) => server.id)).toEqual(['two']);
    const waiting = [{ kind: 'permission', id: permission.id, sessionId: id, text: 'bash "ls"', ofSubAgent: false }];
    expect(found[0]).toEqual({
      id: 'two',
      version: '1.18.33',
      dialect: 'opencode-1',
      directory: PROJECT,
      worktree: PROJECT,
      overviews: [
        {
          directory: PROJECT,
          activity: { kind: 'busy' },
          running: [id],
          session: { id, title: 'A title', directory: PROJECT, updatedMs: expect.any(Number) },
          waiting,
          sessions: [
            {
              id,
              title: 'A title',
              directory: PROJECT,
              state: 'waiting',
              sinceMs: expect.any(Number),
              turnBeganMs: expect.any(Number),
              waiting,
            },
          ],
        },
      ],
    });
  });

  test('answer a held request when a turn begins and when a turn waits', async () => {
    await untilSettled();
    const { id } = fake.addSession();
    await until('the session to be listed', async () => (await stateOf('two'))?.overviews[0]?.session?.id === id);
    const begins = await stage.hold(STATES_PATH);
    fake.state.begin(id, 'Go');
    expect((await begins.answer).text).toContain('"state":"busy"');
    const waits = await stage.hold(STATES_PATH);
    const permission = fake.addPermission({ sessionID: id });
    expect((await waits.answer).text).toContain(permission.id);
  });

  test('of other directories are hidden from callers with the role read', async () => {
    const { id: here } = fake.addSession();
    const { id: there } = fake.addSession({ directory: WORKTREE });
    const { id: ended } = fake.addSession({ directory: WORKTREE });
    for (const id of [here, there, ended]) fake.state.begin(id, 'Go');
    fake.state.finish(ended, 'Done');
    fake.addPermission({ sessionID: there, metadata: { command: 'a secret' } });
    const all = await until('all sessions to be listed', async () => {
      const state = await stateOf('two');
      const ids = state?.overviews.flatMap(({ sessions = [] }) => sessions.map(({ id }) => id)).toSorted();
      return isDeepStrictEqual(ids, [here, there, ended].toSorted()) && state?.overviews[1]?.waiting && state;
    });
    expect(all.overviews[1]).toMatchObject({ running: [there], waiting: [{ sessionId: there }] });
    const seen = await stateOf('two', READER);
    expect(seen?.overviews).toMatchObject([{ directory: PROJECT, running: [here], sessions: [{ id: here }] }]);
    for (const secret of [WORKTREE, there, ended, 'a secret']) expect(JSON.stringify(seen)).not.toContain(secret);
  });

  test("are refused if the caller's role drops while the request is held", async () => {
    await untilSettled();
    const { answer } = await stage.hold(STATES_PATH);
    const laptop = tailnetNode({ id: 'laptop', addresses: [OWN_LAPTOP], userId: 'user-bob' });
    stage.api.callers.set(OWN_LAPTOP, whoisOf(laptop, 'bob@example.com', { [CAPABILITY]: [{ role: 'read' }] }));
    fake.state.begin(fake.addSession().id, 'Go');
    expect(await answer).toMatchObject({ status: 403, text: expect.stringContaining('role') });
  });

  test('are refused to callers who may not see the list', async () => {
    expect((await stage.call(STATES_PATH, { from: STRANGER })).status).toBe(403);
    expect((await stage.call(STATES_PATH, { method: 'POST' })).status).toBe(405);
  });

  test('leave out a server that is not followed', async () => {
    await untilSettled();
    const { answer } = await stage.hold(STATES_PATH);
    fake.override('GET /global/event', { kind: 'answer', status: 500 });
    fake.endStreams('destroy');
    const { text } = await answer;
    const listing: StatesListing = JSON.parse(text);
    expect(listing.states).toEqual([]);
    expect(listing.instances.map(({ id }) => id)).toContain('two');
    fake.override('GET /global/event', undefined);
    await until('the server to be followed again', async () => (await stateOf('two')) !== undefined);
  });
});

describe('the states of many sessions and servers', () => {
  beforeAll(openStage);
  afterAll(closeStage);

  /** The list and the watched server; the tests build variants of both. */
  async function watchedState(): Promise<{ list: Listing; two: WatchedServer; nowMs: number }> {
    const { states: _, ...list } = await states();
    const two = stage.watcher.servers().find(({ id }) => id === 'two');
    if (two?.checkedMs === undefined) throw new Error('Expected a followed server, got none');
    return { list, two, nowMs: two.checkedMs };
  }

  const sessionsOf = (count: number, fields: Partial<WatchedSession> = {}): WatchedSession[] =>
    Array.from({ length: count }, (_, index) => ({
      id: `ses_${index}`,
      title: 'A title',
      directory: PROJECT,
      state: 'idle',
      sinceMs: 1,
      waiting: [],
      ...fields,
    }));

  test('leave out a state older than a minute', async () => {
    const { list, two, nowMs } = await watchedState();
    const countAfter = (ms: number) => withStates(list, [two], { role: 'drive', nowMs: nowMs + ms }).states.length;
    expect([countAfter(59_000), countAfter(60_001)]).toEqual([1, 0]);
  });

  test('are bounded: servers that do not fit are left out', async () => {
    const { list, two, nowMs } = await watchedState();
    const ids = Array.from({ length: 8 }, (_, index) => `copy-${index}`);
    const instances = ids.flatMap((id) => list.instances.slice(0, 1).map((entry) => ({ ...entry, id })));
    const servers = ids.map((id) => ({ ...two, id, sessions: sessionsOf(90, { title: 'x'.repeat(5000) }) }));
    const found = withStates({ ...list, instances }, servers, { role: 'drive', nowMs });
    expect(found.instances).toHaveLength(8);
    expect(found.states.map(({ overviews }) => overviews[0]?.sessions?.length)).toEqual([50, 50, 50]);
    expect(JSON.stringify(found).length).toBeLessThan(1_000_000);
  });

  test('list waiting and running sessions before any number of ended sessions', async () => {
    const { list, two, nowMs } = await watchedState();
    const sessions = [
      ...sessionsOf(90),
      ...sessionsOf(1, { id: 'ses_runs', state: 'busy' }),
      ...sessionsOf(1, { id: 'ses_waits', state: 'waiting' }),
    ];
    const found = withStates(list, [{ ...two, sessions }], { role: 'drive', nowMs });
    const shown = found.states[0]?.overviews[0]?.sessions ?? [];
    expect(shown.map(({ id }) => id).slice(0, 3)).toEqual(['ses_waits', 'ses_runs', 'ses_0']);
    expect(shown).toHaveLength(50);
  });
});

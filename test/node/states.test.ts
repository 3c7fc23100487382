import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { LIST_PATH, STATES_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { type StatesListing, withStates } from '../../src/node/list/states.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { tailnetNode, whoisOf } from '../rig/memory-local-api.ts';
import { until } from '../rig/wait.ts';
import { type Answer, CAPABILITY, ID, type NodeStage, openNodeStage, OWN_LAPTOP, READER, STRANGER } from './stage.ts';

const PROJECT = '/home/user/project';
const WORKTREE = '/home/user/worktree';

let fake: FakeOpencode;
let stage: NodeStage;

beforeEach(async () => {
  fake = await startFakeOpencode({ directory: PROJECT });
  stage = await openNodeStage({ watch: true });
  await stage.registry.add({ name: 'two', id: 'two', port: fake.port, cwd: PROJECT });
  await until('it to be followed', async () => (await states()).states.some(({ id }) => id === 'two'));
});
afterEach(async () => {
  await stage[Symbol.asyncDispose]();
  await fake.close();
});

async function states(from = OWN_LAPTOP): Promise<StatesListing> {
  const { status, text } = await stage.call(STATES_PATH, { from });
  if (status !== 200) throw new Error(`the states gave ${status}: ${text}`);
  const listing: StatesListing = JSON.parse(text);
  return listing;
}

async function stateOf(id: string, from?: string): Promise<StatesListing['states'][number] | undefined> {
  return (await states(from)).states.find((one) => one.id === id);
}

/** A request for the states that waits for a change; it is being held when this resolves. */
async function hold(from = OWN_LAPTOP): Promise<{ readonly answer: Promise<Answer> }> {
  const { headers } = await stage.call(STATES_PATH, { from });
  const before = stage.service.waiting;
  const answer = stage.call(STATES_PATH, { from, headers: { 'if-none-match': headers.etag, prefer: 'wait=20' } });
  // Whoever awaits it sees how it ends.
  answer.catch(() => {});
  await until('the request to be held', () => stage.service.waiting > before);
  return { answer };
}

/** What is asked again when a stream opens is asked by now, so that nothing but a change answers a held request. */
const settled = (): Promise<unknown> =>
  until('the stream to be looked after', () => fake.count('GET /session/status') >= 3);

describe('the states', () => {
  test('are the list and the state of each server', async () => {
    const { id } = fake.addSession({ title: 'A title' });
    fake.state.begin(id, 'Go');
    const asked = fake.addPermission({ sessionID: id });
    await until('it to wait', async () => (await stateOf('two'))?.overviews[0]?.sessions?.[0]?.state === 'waiting');
    const { states: found, ...list } = await states();
    expect(list).toEqual(await stage.list());
    expect(found.map(({ id }) => id)).toEqual(['two']);
    const waiting = [{ kind: 'permission', id: asked.id, sessionId: id, text: 'bash "ls"', ofSubAgent: false }];
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

  test('do not change the list or its entity tag', async () => {
    const before = await stage.call(LIST_PATH);
    const { id } = fake.addSession();
    fake.state.begin(id, 'Go');
    await until('it to run', async () => (await stateOf('two'))?.overviews[0]?.running.length === 1);
    const after = await stage.call(LIST_PATH);
    expect([after.text, after.headers.etag]).toEqual([before.text, before.headers.etag]);
  });

  test('answer a held request when a turn begins, waits and ends', async () => {
    await settled();
    const { id } = fake.addSession();
    await until('it to be listed', async () => (await stateOf('two'))?.overviews[0]?.session?.id === id);
    const begins = await hold();
    fake.state.begin(id, 'Go');
    expect((await begins.answer).text).toContain('"state":"busy"');
    const waits = await hold();
    const asked = fake.addPermission({ sessionID: id });
    expect((await waits.answer).text).toContain(asked.id);
  });

  test('of other directories are hidden from the role read', async () => {
    const { id: here } = fake.addSession();
    const { id: there } = fake.addSession({ directory: WORKTREE });
    const { id: ended } = fake.addSession({ directory: WORKTREE });
    for (const id of [here, there, ended]) fake.state.begin(id, 'Go');
    fake.state.finish(ended, 'Done');
    fake.addPermission({ sessionID: there, metadata: { command: 'a secret' } });
    const places = async (from?: string) => (await stateOf('two', from))?.overviews.map(({ directory }) => directory);
    await until('both to be seen', async () => (await places())?.includes(WORKTREE));
    const all = await stateOf('two');
    expect(all?.overviews.flatMap(({ sessions = [] }) => sessions.map(({ id }) => id)).toSorted()).toEqual(
      [here, there, ended].toSorted(),
    );
    expect(all?.overviews[1]).toMatchObject({ running: [there], waiting: [{ sessionId: there }] });
    const seen = await stateOf('two', READER);
    expect(seen?.overviews).toMatchObject([{ directory: PROJECT, running: [here], sessions: [{ id: here }] }]);
    for (const secret of [WORKTREE, there, ended, 'a secret']) expect(JSON.stringify(seen)).not.toContain(secret);
  });

  test('are refused if the caller’s role dropped during the wait', async () => {
    await settled();
    const { answer } = await hold();
    const { addresses } = tailnetNode({ id: 'laptop', addresses: [OWN_LAPTOP] });
    const laptop = tailnetNode({ id: 'laptop', addresses, userId: 'user-bob' });
    stage.api.callers.set(OWN_LAPTOP, whoisOf(laptop, 'bob@example.com', { [CAPABILITY]: [{ role: 'read' }] }));
    fake.state.begin(fake.addSession().id, 'Go');
    expect(await answer).toMatchObject({ status: 403, text: expect.stringContaining('role') });
  });

  test('are refused to callers who may not see the list', async () => {
    expect((await stage.call(STATES_PATH, { from: STRANGER })).status).toBe(403);
    expect((await stage.call(STATES_PATH, { method: 'POST' })).status).toBe(405);
  });

  test('leave out a server that is not followed', async () => {
    await settled();
    const { answer } = await hold();
    fake.override('GET /global/event', { kind: 'answer', status: 500 });
    fake.endStreams('destroy');
    const { text } = await answer;
    const listing: StatesListing = JSON.parse(text);
    expect(listing.states).toEqual([]);
    expect(listing.instances.map(({ id }) => id)).toContain('two');
    fake.override('GET /global/event', undefined);
    await until('it to be followed again', async () => (await stateOf('two')) !== undefined);
  });

  test('leave out a state older than a minute', async () => {
    const { states: _, ...list } = await states();
    const watched = stage.watcher.servers();
    const checkedMs = watched.find(({ id }) => id === 'two')?.checkedMs ?? 0;
    const idsAt = (nowMs: number) => withStates(list, watched, { role: 'drive', nowMs }).states.map(({ id }) => id);
    expect(idsAt(checkedMs + 59_000)).toEqual(['two']);
    expect(idsAt(checkedMs + 60_001)).toEqual([]);
  });

  test('are bounded, leaving out servers that do not fit', async () => {
    const { states: _, ...list } = await states();
    const two = stage.watcher.servers().find(({ id }) => id === 'two');
    const entry = list.instances.find(({ id }) => id === 'two');
    if (two === undefined || entry === undefined) throw new Error('Expected the instance, got none');
    const ids = Array.from({ length: 8 }, (_, index) => `copy-${index}`);
    const sessions = Array.from({ length: 90 }, (_, index) => ({
      id: `ses_${index}`,
      title: 'x'.repeat(5000),
      directory: PROJECT,
      state: 'idle' as const,
      sinceMs: 1,
      waiting: [],
    }));
    const crowded = { ...list, instances: ids.map((id) => ({ ...entry, id })) };
    const watched = ids.map((id) => ({ ...two, id, sessions }));
    const found = withStates(crowded, watched, { role: 'drive', nowMs: two.checkedMs ?? 0 });
    expect(found.instances).toHaveLength(8);
    expect(found.states.map(({ overviews }) => overviews[0]?.sessions?.length)).toEqual([50, 50, 50]);
    expect(JSON.stringify(found).length).toBeLessThan(1_000_000);
  });

  test('keep a waiting session before any number of ended ones', async () => {
    const { states: _, ...list } = await states();
    const two = stage.watcher.servers().find(({ id }) => id === 'two');
    if (two === undefined) throw new Error('Expected the instance, got none');
    const one = { title: 'A title', directory: PROJECT, sinceMs: 1, waiting: [] };
    const ended = Array.from({ length: 90 }, (__, index) => ({ ...one, id: `ses_${index}`, state: 'idle' as const }));
    const sessions = [...ended, { ...one, id: 'ses_runs', state: 'busy' as const }];
    const last = { ...one, id: 'ses_waits', state: 'waiting' as const };
    const found = withStates(list, [{ ...two, sessions: [...sessions, last] }], {
      role: 'drive',
      nowMs: two.checkedMs ?? 0,
    });
    const shown = found.states[0]?.overviews[0]?.sessions ?? [];
    expect(shown.map(({ id }) => id).slice(0, 3)).toEqual(['ses_waits', 'ses_runs', 'ses_0']);
    expect(shown).toHaveLength(50);
  });

  test('leave out an instance of which nothing is known', async () => {
    // The stage's own instance has no event stream.
    expect(await stateOf(ID)).toBeUndefined();
  });
});

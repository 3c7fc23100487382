import { describe, expect, test } from 'vitest';

import type { Instance, Overview, ProbedEndpoint, Snapshot, Waiting } from '../../src/model/instance.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import { fleetState } from '../../src/page/fleet/fleet-state.ts';
import { type KnownSession, type RowDeps, sessionRows } from '../../src/page/fleet/session-rows.ts';

const DIRECTORY = '/home/ada/app';

const HEALTHY = { version: '1.18.33', dialect: 'opencode-1', directory: DIRECTORY, worktree: DIRECTORY } as const;
const ENDPOINT: ProbedEndpoint = {
  id: 'one',
  candidate: {
    source: 'local-relay',
    key: 'one.json',
    endpoint: { url: 'http://127.0.0.1:1', route: 'loopback' },
    claims: {},
    trust: { level: 'trusted' },
  },
  result: { status: 'healthy', ...HEALTHY },
  lastHealthy: HEALTHY,
  misses: 0,
};

function instance(overview: Partial<Overview>, more: Partial<Instance> = {}): Instance {
  return {
    server: { key: 'one', claims: {}, endpoints: [ENDPOINT] },
    key: 'one',
    name: 'one',
    host: 'desk',
    state: 'busy',
    directory: DIRECTORY,
    overview: { activity: { kind: 'busy' }, running: [], waiting: [], askedAtMs: 1, ...overview },
    ...more,
  };
}

function deps(known: Readonly<Record<string, KnownSession>> = {}): RowDeps {
  return { known: (_, id) => known[id], since: () => 7 };
}

const permission: Waiting = {
  kind: 'permission',
  id: 'per_1',
  sessionId: 'ses_child',
  text: 'bash "ls"',
  ofSubAgent: true,
};
const watched = (fields: Partial<WatchedSession> & Pick<WatchedSession, 'id'>): WatchedSession => ({
  title: fields.id,
  directory: DIRECTORY,
  state: 'busy',
  sinceMs: 3,
  waiting: [],
  ...fields,
});

function rowsOf(overview: Partial<Overview>, known?: Parameters<typeof deps>[0]): ReturnType<typeof sessionRows> {
  return sessionRows(instance(overview), deps(known));
}

describe('sessions from a watcher', () => {
  test('a sub-agent’s request is shown at its root session', () => {
    const sessions = [
      watched({ id: 'ses_root', title: 'Fix the build' }),
      watched({ id: 'ses_middle', parentId: 'ses_root' }),
      watched({ id: 'ses_child', parentId: 'ses_middle', state: 'waiting', waiting: [permission] }),
    ];
    expect(rowsOf({ sessions })).toEqual([
      {
        instance: 'one',
        host: 'desk',
        directory: DIRECTORY,
        id: 'ses_root',
        title: 'Fix the build',
        state: 'waiting',
        sinceMs: 3,
        waiting: [{ kind: 'permission', id: 'per_1', text: 'bash "ls"' }],
      },
    ]);
  });

  test('a sub-agent whose root is not listed gets its own row', () => {
    const sessions = [watched({ id: 'ses_child', parentId: 'ses_root', state: 'waiting', waiting: [permission] })];
    expect(rowsOf({ sessions })).toMatchObject([{ id: 'ses_child', parent: 'ses_root' }]);
  });

  test('sessions that name each other as parents are all shown', () => {
    const ring = ['ses_a', 'ses_b', 'ses_c'];
    const sessions = ring.map((id, index) => watched({ id, parentId: ring[(index + 1) % 3] ?? '' }));
    expect(rowsOf({ sessions })).toHaveLength(3);
  });
});

describe('sessions from the last survey', () => {
  const session = { id: 'ses_root', title: 'Fix the build', directory: DIRECTORY, updatedMs: 5 };

  test('a sub-agent is shown at its root once its parent is known', () => {
    const overview = { session, running: ['ses_root', 'ses_child'], waiting: [permission] };
    const known = { ses_child: { title: 'Look', directory: DIRECTORY, parentId: 'ses_root' } };
    expect(rowsOf(overview, known)).toMatchObject([
      { id: 'ses_root', title: 'Fix the build', state: 'waiting', sinceMs: 7, waiting: [{ id: 'per_1' }] },
    ]);
    expect(rowsOf(overview)).toMatchObject([
      { id: 'ses_root', state: 'busy' },
      { id: 'ses_child', title: '', state: 'waiting' },
    ]);
  });

  test.each<[string, Partial<Overview>, readonly object[]]>([
    ['at rest', { session: { ...session, rest: { state: 'idle' } } }, [{ state: 'idle', sinceMs: 5 }]],
    [
      'interrupted',
      { session: { ...session, rest: { state: 'interrupted', reason: 'restarted' } } },
      [{ state: 'interrupted', reason: 'restarted' }],
    ],
    ['starting', { session: { ...session, rest: { state: 'starting' } } }, [{ state: 'busy' }]],
    ['at rest, with a stale status', { session, stale: ['status'] }, []],
    [
      'retrying',
      { session, running: ['ses_root'], activity: { kind: 'retrying', attempt: 2, message: 'Rate limit' } },
      [{ state: 'retrying', reason: 'attempt 2: opencode says "Rate limit"' }],
    ],
  ])('sessionRows gives the state of a session that is %s, if it is known', (_, overview, rows) => {
    expect(rowsOf({ activity: { kind: 'idle' }, ...overview })).toMatchObject(rows);
  });

  test('an instance that does not answer lists no session', () => {
    expect(sessionRows(instance({ session, running: ['ses_root'] }, { state: 'offline' }), deps())).toEqual([]);
  });
});

describe('the list', () => {
  const snapshot = (...instances: readonly Instance[]): Snapshot => ({
    instances,
    resting: [],
    gone: [],
    sources: [],
    notes: [{ source: 'local-relay', subject: '/home/ada/x.json', reason: 'is no JSON' }],
  });
  const sessions = [watched({ id: 'ses_1' }), watched({ id: 'ses_2', directory: '/home/ada/secret' })];
  const otherInstance = instance(
    { sessions },
    { key: 'one\0/home/ada/secret', name: 'secret', directory: '/home/ada/secret' },
  );

  test('a guest sees only sessions in the directories of their instances, and no notes', () => {
    const all = snapshot(instance({ sessions }), otherInstance);
    expect(fleetState(all, { isGuest: true }, deps())).toMatchObject({
      instances: [{ name: 'one' }],
      sessions: [{ id: 'ses_1' }],
      notes: [],
    });
    const ownState = fleetState(all, {}, deps());
    expect(ownState.instances.map(({ name }) => name)).toEqual(['one', 'secret']);
    expect(ownState.notes).toHaveLength(1);
  });

  test('waiting sessions come first and are never left out', () => {
    const many = Array.from({ length: 600 }, (_, number) => watched({ id: `ses_${number}`, state: 'idle' }));
    const last = watched({ id: 'ses_last', state: 'waiting', waiting: [{ ...permission, ofSubAgent: false }] });
    const state = fleetState(snapshot(instance({ sessions: [...many, last] })), {}, deps());
    expect([state.sessions.length, state.sessions[0]?.id]).toEqual([500, 'ses_last']);
    expect(state.notes).toContain('101 more instances and sessions are not shown');
  });

  test('a session of an OpenCode 2 is listed once, at its directory', () => {
    const one = watched({ id: 'ses_1' });
    const service = instance({ sessions: [one, watched({ id: 'ses_2' })] }, { name: 'desk:service', directory: '' });
    const { sessions } = fleetState(snapshot(service, instance({ sessions: [one] })), {}, deps());
    expect(sessions.map((row) => [row.id, row.instance])).toEqual([
      ['ses_2', 'desk:service'],
      ['ses_1', 'one'],
    ]);
  });

  test('a machine is offline when all of its instances are', () => {
    const offlineInstance = instance(
      {},
      { name: 'two', host: 'laptop', state: 'offline', reason: 'it does not answer' },
    );
    expect(fleetState(snapshot(instance({}), offlineInstance), {}, deps()).machines).toEqual([
      { host: 'desk', state: 'ok' },
      { host: 'laptop', state: 'offline', reason: 'it does not answer' },
    ]);
  });
});

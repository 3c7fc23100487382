import { describe, expect, test } from 'vitest';

import { type PeerList, readPeerList } from '../../../src/discovery/tailnet/peer-list.ts';
import { busyIn, idleIn } from '../../rig/fake/fake-node-service.ts';
import { EVIL, stringsIn, unsafeIn } from '../../rig/hostile-words.ts';
import { listed, listing } from '../tailscale-stage.ts';

const DIRECTORY = '/srv';

/** A state as a node service sends it, with `fields` changed. */
function state(fields: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  const facts = { id: 'a', version: '1.18.33', dialect: 'opencode-1', directory: DIRECTORY, worktree: '/' };
  return { ...facts, overviews: [idleIn(DIRECTORY)], ...fields };
}

function read(...states: readonly unknown[]): Extract<PeerList, { leftOut: number }> {
  const list = readPeerList(JSON.stringify({ ...listing(listed('a')), states }));
  if ('problem' in list) throw new Error(list.problem);
  return list;
}

/** An overview with a session and a request; each case makes a part of it invalid. */
const busy = busyIn(DIRECTORY, {}, 'ls');
const [session] = busy.sessions ?? [];
const [waiting] = busy.waiting;

describe('the states of a node service', () => {
  test('are read unchanged', () => {
    const elsewhere = busyIn('/srv/other', { reason: 'why', parentId: 'ses_1', turnBeganMs: 7 }, 'make');
    const { states, leftOut } = read(
      state({ overviews: [idleIn(DIRECTORY), elsewhere], pid: 'only OpenCode 2 has one' }),
    );
    expect(leftOut).toBe(0);
    expect(states.get('a')).toEqual({
      result: { status: 'healthy', version: '1.18.33', dialect: 'opencode-1', directory: DIRECTORY, worktree: '/' },
      overviews: [idleIn(DIRECTORY), elsewhere],
    });
  });

  test('give an OpenCode 2 no directory of its own', () => {
    const { states } = read(
      state({ dialect: 'opencode-2', version: '2.1.2', pid: 7, overviews: [{ ...idleIn(''), session: undefined }] }),
    );
    expect(states.get('a')?.result).toMatchObject({ directory: '', worktree: '', pid: 7 });
    expect(states.get('a')?.overviews.map(({ directory }) => directory)).toEqual(['']);
  });

  test('are cleaned and bounded', () => {
    const words = `${EVIL}${'x'.repeat(10_000)}`;
    const hostile = {
      ...busy,
      activity: { kind: 'retrying', attempt: 1, message: words },
      session: { ...busy.session, title: words, rest: { state: 'interrupted', reason: words } },
      waiting: [{ ...waiting, text: words }],
      sessions: [{ ...session, title: words, reason: words, waiting: [{ ...waiting, text: words }] }],
    };
    const { states } = read(state({ overviews: [hostile] }));
    const texts = stringsIn([...states.values()]).map(([, text]) => text);
    expect(texts.filter((text) => text.endsWith('…')).length).toBe(7);
    for (const text of texts) {
      expect(text.length).toBeLessThanOrEqual(300);
      expect(unsafeIn(text)).toBeUndefined();
      expect(text).not.toContain('\n');
    }
  });

  test.each<[string, Readonly<Record<string, unknown>>]>([
    ['no version', { version: undefined }],
    ['a version with an escape sequence', { version: '1.18\u001b[31m' }],
    ['an unknown dialect', { dialect: 'opencode-3' }],
    ['no directory', { directory: undefined }],
    ['a relative directory', { directory: 'srv' }],
    ['a directory with an invisible character', { directory: '/srv\u202e' }],
    ['a directory that is too long', { directory: `/${'x'.repeat(5000)}` }],
    ['overviews that are not a list', { overviews: { 0: busy } }],
    ['65 overviews', { overviews: Array.from({ length: 65 }, () => busy) }],
    ['51 sessions', { overviews: [{ ...busy, sessions: Array.from({ length: 51 }, () => session) }] }],
    ['an invalid id of a running session', { overviews: [{ ...busy, running: ['../x'] }] }],
    ['an invalid witness', { overviews: [{ ...busy, witness: 'ses/../../x' }] }],
    ['a second overview with a relative directory', { overviews: [busy, { ...busy, directory: 'x' }] }],
    ['an unknown kind of request', { overviews: [{ ...busy, waiting: [{ ...waiting, kind: 'other' }] }] }],
    ['an invalid request id', { overviews: [{ ...busy, waiting: [{ ...waiting, id: 'per 1' }] }] }],
    ['an unknown state', { overviews: [{ ...busy, sessions: [{ ...session, state: 'odd' }] }] }],
    ['an invalid time', { overviews: [{ ...busy, sessions: [{ ...session, sinceMs: 1e300 }] }] }],
    ['an object as title', { overviews: [{ ...busy, sessions: [{ ...session, title: { a: 1 } }] }] }],
    ['an id that is not in the list', { id: 'b' }],
  ])('leave out a server with %s', (_, fields) => {
    const { states, leftOut, instances } = read(state(fields));
    expect([states.size, leftOut, instances.length]).toEqual([0, 1, 1]);
  });

  test('are limited to the number of servers', () => {
    const { states, leftOut } = read(...Array.from({ length: 10_000 }, () => state()));
    expect([states.size, leftOut]).toEqual([1, 9999]);
  });

  test.each(['a text', 7, { a: state() }])('that are not a list make the whole answer invalid: %j', (states) => {
    expect(readPeerList(JSON.stringify({ ...listing(listed('a')), states }))).toHaveProperty('problem');
  });
});

import { expect, test } from 'vitest';

import type { WatchedSession } from '../../src/model/watched.ts';
import type { Urgency } from '../../src/watch/survey-pace.ts';
import { hintIn, isEpoch, sessionIn } from '../../src/watch/hints.ts';

const ID = 'ses_1';
const session = (state: WatchedSession['state']): WatchedSession => ({
  id: ID,
  title: 'A title',
  directory: '/home/user/project',
  state,
  sinceMs: 1,
  waiting: [],
});
const status = (type: string): object => ({ sessionID: ID, status: { type } });
const info = (title: string): object => ({ info: { id: ID, title } });

test.each<[string, object, WatchedSession['state'] | undefined, Urgency | undefined]>([
  // A streaming turn sends hundreds of these a second.
  ['message.part.delta', { sessionID: ID, delta: 'text' }, 'busy', undefined],
  ['message.part.updated', { sessionID: ID }, 'busy', undefined],
  ['message.updated', { sessionID: ID }, 'busy', undefined],
  ['server.heartbeat', {}, undefined, undefined],
  ['lsp.client.diagnostics', {}, undefined, undefined],
  ['session.status', status('busy'), undefined, 'now'],
  ['session.status', status('busy'), 'idle', 'now'],
  ['session.status', status('busy'), 'busy', undefined],
  ['session.status', status('busy'), 'waiting', 'now'],
  ['session.status', status('busy'), 'retrying', 'now'],
  ['session.status', status('retry'), 'busy', 'now'],
  // The turn begins another attempt.
  ['session.status', status('retry'), 'retrying', 'now'],
  ['session.status', status('idle'), 'busy', 'now'],
  ['session.status', status('idle'), 'idle', undefined],
  ['session.idle', { sessionID: ID }, 'waiting', 'now'],
  // Proofs of identity send it for a random session ID.
  ['session.idle', { sessionID: ID }, undefined, undefined],
  ['session.error', { sessionID: ID }, 'busy', 'now'],
  ['session.error', {}, undefined, 'now'],
  ['prompt.taken', { sessionID: ID }, 'idle', 'now'],
  ['prompt.taken', { sessionID: ID }, 'busy', undefined],
  ['permission.asked', { sessionID: ID }, 'busy', 'now'],
  ['permission.replied', { sessionID: ID }, 'waiting', 'now'],
  ['question.asked', { sessionID: ID }, 'busy', 'now'],
  ['question.replied', { sessionID: ID }, 'waiting', 'now'],
  ['question.rejected', { sessionID: ID }, 'waiting', 'now'],
  // OpenCode 2 sends nothing else for an answer, and sends this for each step of a reasoning model.
  ['session.touched', { sessionID: ID }, 'waiting', 'now'],
  ['session.touched', { sessionID: ID }, 'busy', undefined],
  ['session.touched', { sessionID: ID }, 'idle', 'soon'],
  ['session.updated', info('A title'), 'busy', undefined],
  ['session.updated', info('Another title'), 'busy', 'soon'],
  ['session.updated', info('A title'), undefined, 'soon'],
  ['session.created', info('A title'), undefined, 'soon'],
  ['session.deleted', info('A title'), 'busy', 'now'],
  ['session.deleted', info('A title'), 'idle', 'soon'],
])('%s %j of a session that is %s asks for a survey: %s', (type, properties, state, expected) => {
  const known = state === undefined ? undefined : session(state);
  expect(hintIn({ type, properties: { ...properties } }, known, false)).toBe(expected);
});

test.each([
  ['session.status', status('busy'), 'busy'],
  ['session.status', status('idle'), 'idle'],
  ['session.idle', { sessionID: ID }, undefined],
  ['prompt.taken', { sessionID: ID }, 'busy'],
] as const)(
  '%s %j during a survey asks for another, since the answers of the survey may be older',
  (type, properties, state) => {
    const known = state === undefined ? undefined : session(state);
    expect(hintIn({ type, properties: { ...properties } }, known, true)).toBe('now');
  },
);

test('sessionIn returns the session ID of an event, or an empty text', () => {
  expect(sessionIn({ type: 'session.idle', properties: { sessionID: ID } })).toBe(ID);
  expect(sessionIn({ type: 'session.updated', properties: { ...info('') } })).toBe(ID);
  expect(sessionIn({ type: 'server.heartbeat', properties: {} })).toBe('');
});

test('isEpoch is true for events after which a session begins, fails or is deleted', () => {
  const epochs = [
    ['session.status', status('busy')],
    ['session.status', status('retry')],
    ['session.status', status('idle')],
    ['prompt.taken', {}],
    ['session.error', {}],
    ['session.deleted', {}],
    ['session.touched', {}],
  ] as const;
  const found = epochs.map(([type, properties]) => isEpoch({ type, properties: { ...properties } }));
  expect(found).toEqual([true, true, false, true, true, true, false]);
});

import { beforeEach, describe, expect, it } from 'vitest';

import type { Followed } from '../../src/model/followed.ts';
import type { WatchedSession } from '../../src/model/watched.ts';
import { Facts, type Memory } from '../../src/notify/facts.ts';
import type { Notice } from '../../src/notify/notice.ts';
import type { WatchedServer } from '../../src/watch/contract.ts';
import { asking, DIRECTORY, serverWith, sessionIn, unseen } from '../watch/hand-watcher.ts';

const SETTINGS = { minTurnSeconds: 30, repeatAfterMinutes: 10, stalledAfterMinutes: 5 };
const START = Date.parse('2026-11-29T12:00:00Z');
const SECOND = 1_000;
const MINUTE = 60_000;

let memory: Memory;
let facts: Facts;
let nowMs: number;
let followed: Map<string, Followed>;

beforeEach(() => {
  memory = new Map();
  facts = new Facts(SETTINGS, 'desk', memory);
  nowMs = START;
  followed = new Map();
});

function look(servers: readonly WatchedServer[], linkBase?: string): readonly Notice[] {
  return facts.look({ servers, followed, nowMs, linkBase });
}

function see(...sessions: readonly WatchedSession[]): readonly Notice[] {
  return look([serverWith(sessions)]);
}

function events(notices: readonly Notice[]): readonly string[] {
  return notices.map(({ event, session }) => `${event} ${session?.title}`);
}

/** Only the stored memory survives a restart. */
function restart(): void {
  facts = new Facts(SETTINGS, 'desk', memory);
}

describe('a request', () => {
  it('gives one notice with its text, session and link', () => {
    const [notice] = look([serverWith([asking(START)])], 'http://desk.tail.ts.net:4095');
    expect(notice).toMatchObject({
      event: 'permission',
      host: 'desk',
      instance: 'desk-web',
      directory: DIRECTORY,
      session: { id: 'ses_1', title: 'Fix the build' },
      request: { id: 'per_1', kind: 'permission', text: 'bash "rm -rf build"' },
      link: 'http://desk.tail.ts.net:4095/#/s/desk-web/ses_1/per_1',
    });
    expect(notice?.id).toMatch(/^[-_A-Za-z0-9]{22}$/);
    expect(see(asking(START))).toEqual([]);
    const [withoutPage] = see(asking(START, { request: 'per_2' }));
    expect(withoutPage).not.toHaveProperty('link');
  });

  it('gives a notice with the same id after a restart, even if nothing was stored', () => {
    const [first] = see(asking(START));
    restart();
    expect(see(asking(START))).toEqual([]);
    facts = new Facts(SETTINGS, 'desk', new Map());
    expect(see(asking(START))[0]?.id).toBe(first?.id);
    const other = asking(START, { request: 'per_2' });
    expect(see(asking(START), other)[0]?.id).not.toBe(first?.id);
  });

  it('that is answered gives a settled notice with the same id', () => {
    const [requestNotice] = see(asking(START));
    const [settled] = see(sessionIn('busy', START));
    expect(settled).toMatchObject({ id: requestNotice?.id, event: 'settled', request: { id: 'per_1' } });
    expect(see(sessionIn('busy', START))).toEqual([]);
  });

  it('is noticed once more if it stays unanswered', () => {
    const [requestNotice] = see(asking(START));
    nowMs += 10 * MINUTE - 1;
    expect(see(asking(START))).toEqual([]);
    expect(facts.nextMs([serverWith([asking(START)])])).toBe(START + 10 * MINUTE);
    nowMs += 1;
    expect(see(asking(START))).toMatchObject([{ id: requestNotice?.id, event: 'unanswered' }]);
    nowMs += 60 * MINUTE;
    restart();
    expect(see(asking(START))).toEqual([]);
    expect(facts.nextMs([serverWith([asking(START)])])).toBe(Number.POSITIVE_INFINITY);
  });

  it('of a sub-agent names and opens the root session', () => {
    const root = sessionIn('busy', START);
    const sub = asking(START, { id: 'ses_3', title: 'explore', parentId: 'ses_2' });
    const parent = sessionIn('busy', START, { id: 'ses_2', title: 'plan', parentId: 'ses_1' });
    const [notice] = look([serverWith([sub, parent, root])], 'http://desk:4095');
    expect(notice).toMatchObject({ event: 'permission', session: { id: 'ses_1', title: 'Fix the build' } });
    expect(notice?.link).toBe('http://desk:4095/#/s/desk-web/ses_1/per_1');
  });

  it('of a server whose event stream is down is not settled', () => {
    see(asking(START));
    nowMs += 60 * MINUTE;
    expect(look([unseen(serverWith([]))])).toEqual([]);
    expect(events(see())).toEqual(['settled Fix the build']);
  });

  it('of a server that ended while the request waited is settled', () => {
    const [requestNotice] = see(asking(START), sessionIn('busy', START, { id: 'ses_2' }));
    const interrupted = [sessionIn('interrupted', nowMs, { reason: 'its server ended while it ran' })];
    expect(look([unseen(serverWith(interrupted))])).toMatchObject([
      { id: requestNotice?.id, event: 'settled', reason: 'its server ended while it ran' },
    ]);
    expect(look([unseen(serverWith(interrupted))])).toEqual([]);
  });

  it('of a server that disappears is settled after a minute, not while its registration is rewritten', () => {
    const [requestNotice] = see(asking(START));
    expect(look([])).toEqual([]);
    nowMs += MINUTE - 1;
    expect(look([])).toEqual([]);
    expect(see(asking(START))).toEqual([]);
    expect(look([])).toEqual([]);
    expect(facts.nextMs([])).toBe(nowMs + MINUTE);
    nowMs += MINUTE;
    expect(look([])).toMatchObject([{ id: requestNotice?.id, event: 'settled', reason: 'its opencode ended' }]);
    expect(memory.size).toBe(0);
  });

  it('in a turn that a call follows is left to that call, unless it stays unanswered', () => {
    followed.set('ses_1', { untilMs: Number.POSITIVE_INFINITY, sawEnd: true });
    expect(see(asking(START))).toEqual([]);
    nowMs += 10 * MINUTE;
    expect(events(see(asking(START)))).toEqual(['unanswered Fix the build']);
  });

  it('that ended a call is not noticed; a later request is', () => {
    followed.set('ses_1', { untilMs: START - 5 * SECOND, sawEnd: false });
    expect(see(asking(START))).toEqual([]);
    expect(see(asking(START), asking(START + 1, { request: 'per_2' }))).toMatchObject([{ request: { id: 'per_2' } }]);
  });
});

describe('a turn', () => {
  it('that ends is noticed, with the same id in a process that saw only its end', () => {
    see(sessionIn('busy', START, { turnBeganMs: START - SECOND }));
    const copy: Memory = new Map(structuredClone([...memory]));
    nowMs += MINUTE;
    const ended = sessionIn('idle', nowMs);
    const [done] = see(ended);
    expect(done).toMatchObject({ event: 'done', session: { title: 'Fix the build' } });
    expect(see(ended)).toEqual([]);
    facts = new Facts(SETTINGS, 'desk', copy);
    nowMs += MINUTE;
    expect(see(ended)).toMatchObject([{ id: done?.id, event: 'done' }]);
  });

  it('that fails is noticed with the reason', () => {
    see(sessionIn('busy', START));
    nowMs += MINUTE;
    expect(see(sessionIn('failed', nowMs, { reason: 'no\u001b[31m credit' }))).toMatchObject([
      { event: 'failed', reason: 'no credit' },
    ]);
  });

  it.each(['done', 'failed'] as const)('shorter than the setting is not noticed: %s', (event) => {
    see(sessionIn('busy', START));
    nowMs += 60 * MINUTE;
    const state = event === 'done' ? 'idle' : 'failed';
    expect(see(sessionIn(state, START + 30 * SECOND - 1))).toEqual([]);
    see(sessionIn('busy', START));
    expect(events(see(sessionIn(state, START + 30 * SECOND)))).toEqual([`${event} Fix the build`]);
  });

  it('is timed from its own beginning even if the end of the previous turn was missed', () => {
    see(sessionIn('busy', START, { turnBeganMs: START }));
    see(sessionIn('busy', START, { turnBeganMs: START + MINUTE }));
    nowMs += 2 * MINUTE;
    expect(see(sessionIn('idle', START + MINUTE + 10 * SECOND))).toEqual([]);
  });

  it('of a session that is gone is forgotten', () => {
    see(sessionIn('busy', START));
    expect(see()).toEqual([]);
    expect([...memory.values()].map(({ runs }) => runs.size)).toEqual([0]);
  });

  it.each<[name: string, end: WatchedSession['state'], given: Partial<WatchedSession>]>([
    ['that a person interrupts', 'interrupted', {}],
    ['of a sub-agent', 'idle', { parentId: 'ses_0' }],
  ])('%s is not noticed', (_, end, given) => {
    see(sessionIn('busy', START, given));
    nowMs += MINUTE;
    expect(see(sessionIn(end, nowMs, given))).toEqual([]);
    expect(see(sessionIn('idle', nowMs, given))).toEqual([]);
  });

  it('whose opencode ends during it is noticed once, as failed, unless a call follows the turn to its end', () => {
    see(sessionIn('busy', START), sessionIn('busy', START, { id: 'ses_2' }));
    followed.set('ses_2', { untilMs: Number.POSITIVE_INFINITY, sawEnd: true });
    nowMs += MINUTE;
    const serverEnded = { reason: 'its server ended while it ran' };
    const interrupted = [
      sessionIn('interrupted', nowMs, serverEnded),
      sessionIn('interrupted', nowMs, { id: 'ses_2', ...serverEnded }),
    ];
    expect(look([unseen(serverWith(interrupted))])).toMatchObject([
      { event: 'failed', session: { id: 'ses_1' }, reason: 'its server ended while it ran' },
    ]);
    expect(look([unseen(serverWith(interrupted))])).toEqual([]);
  });

  it('that ended before the first check is not noticed; a turn that began later is', () => {
    const old = sessionIn('idle', START - MINUTE, { turnBeganMs: START - 5 * MINUTE });
    expect(see(old)).toEqual([]);
    restart();
    nowMs += 10 * MINUTE;
    expect(see(old)).toEqual([]);
    const quick = sessionIn('failed', nowMs + 2 * MINUTE, { turnBeganMs: nowMs + MINUTE });
    nowMs += 3 * MINUTE;
    expect(events(see(quick))).toEqual(['failed Fix the build']);
    expect(see(quick)).toEqual([]);
  });

  it('that a call follows to its end is not noticed; the next one is', () => {
    see(sessionIn('busy', START));
    followed.set('ses_1', { untilMs: Number.POSITIVE_INFINITY, sawEnd: true });
    nowMs += MINUTE;
    expect(see(sessionIn('idle', nowMs))).toEqual([]);
    followed.set('ses_1', { untilMs: nowMs, sawEnd: true });
    see(sessionIn('busy', nowMs + SECOND));
    nowMs += MINUTE + SECOND;
    expect(events(see(sessionIn('idle', nowMs)))).toEqual(['done Fix the build']);
  });

  it('whose end no call saw is noticed', () => {
    see(sessionIn('busy', START));
    nowMs += MINUTE;
    followed.set('ses_1', { untilMs: nowMs, sawEnd: false });
    expect(events(see(sessionIn('idle', nowMs)))).toEqual(['done Fix the build']);
  });

  it('that retries for long is noticed once, and its end replaces that notice', () => {
    see(sessionIn('busy', START));
    const retrying = sessionIn('retrying', START + SECOND, { reason: 'attempt 7: overloaded' });
    expect(see(retrying)).toEqual([]);
    expect(facts.nextMs([serverWith([retrying])])).toBe(START + SECOND + 5 * MINUTE);
    nowMs += SECOND + 5 * MINUTE;
    const [stalled] = see(retrying);
    expect(stalled).toMatchObject({ event: 'stalled', reason: 'attempt 7: overloaded' });
    expect(see(retrying)).toEqual([]);
    nowMs += MINUTE;
    expect(see(sessionIn('idle', nowMs))).toMatchObject([{ id: stalled?.id, event: 'done' }]);
  });

  it('without an event for long is noticed once', () => {
    const busy = sessionIn('busy', START);
    const server = serverWith([busy], { ses_1: START + MINUTE });
    expect(look([server])).toEqual([]);
    expect(facts.nextMs([server])).toBe(START + 6 * MINUTE);
    nowMs = START + 6 * MINUTE - 1;
    expect(look([server])).toEqual([]);
    nowMs += 1;
    expect(look([server])).toMatchObject([{ event: 'stalled', reason: 'no output for 5 minutes' }]);
    nowMs += 60 * MINUTE;
    expect(look([server])).toEqual([]);
    expect(facts.nextMs([server])).toBe(Number.POSITIVE_INFINITY);
  });

  it('of a server whose event stream is down has no due time until the stream is back', () => {
    const sessions = [sessionIn('busy', START), asking(START, { id: 'ses_2' })];
    look([serverWith(sessions)]);
    nowMs += 60 * MINUTE;
    expect(look([unseen(serverWith(sessions))])).toEqual([]);
    expect(facts.nextMs([unseen(serverWith(sessions))])).toBe(Number.POSITIVE_INFINITY);
    expect(facts.nextMs([serverWith(sessions)])).toBeLessThan(nowMs);
  });

  it('whose sub-agent works or waits is not stalled', () => {
    const root = sessionIn('busy', START);
    const child = sessionIn('busy', START, { id: 'ses_2', parentId: 'ses_1' });
    nowMs += 60 * MINUTE;
    const lastEvents = { ses_1: START, ses_2: nowMs - MINUTE };
    expect(look([serverWith([root, child], lastEvents)])).toEqual([]);
    const waiting = asking(START, { id: 'ses_2', parentId: 'ses_1' });
    expect(events(look([serverWith([root, waiting])]))).toEqual(['permission Fix the build']);
    nowMs += MINUTE;
    expect(events(look([serverWith([root, { ...child, sinceMs: START }])]))).toContain('stalled Fix the build');
  });
});

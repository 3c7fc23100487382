import { cpSync, existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Logger } from '../../src/base/log.ts';
import { type ChannelRules, NOTIFY_EVENTS } from '../../src/config/notify.ts';
import type { Followed } from '../../src/model/followed.ts';
import type { Channel } from '../../src/notify/channels/channel.ts';
import type { Memory } from '../../src/notify/facts.ts';
import { NoticeStore } from '../../src/notify/notice-store.ts';
import { Notifier, type NotifierDeps } from '../../src/notify/notifier.ts';
import { holdNotifying } from '../../src/notify/sole-notifier.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { DEAD, HandChannel } from './hand-channel.ts';
import { asking, HandWatcher, sessionIn } from '../watch/hand-watcher.ts';

const MINUTE = 60_000;
const SETTINGS = { minTurnSeconds: 30, repeatAfterMinutes: 10, stalledAfterMinutes: 10 };

let temp: TempDir;
let clock: ManualClock;
let watcher: HandWatcher;
let phone: HandChannel;
let other: HandChannel;
let followed: Map<string, Followed>;
let logged: string[];
let running: Notifier[];
const logger: Logger = {
  log: (level, message, fields) => logged.push(`${level} ${message} ${JSON.stringify(fields)}`),
};

beforeEach(() => {
  temp = tempDir('notifier');
  clock = new ManualClock();
  watcher = new HandWatcher();
  phone = new HandChannel();
  other = new HandChannel();
  followed = new Map();
  logged = [];
  running = [];
});

afterEach(async () => {
  await Promise.all(running.map((notifier) => notifier.close()));
  await temp.close();
});

function named(name: string, channel: Channel): { rules: ChannelRules; channel: Channel } {
  return { rules: { name, text: 'full', events: NOTIFY_EVENTS, instances: [] }, channel };
}

function start(channels = [named('phone', phone)], given: Partial<NotifierDeps> = {}): Notifier {
  const notifier = new Notifier({
    settings: SETTINGS,
    channels,
    watcher,
    host: 'desk',
    linkBase: () => 'http://desk.tail.ts.net:4095',
    followed: async () => followed,
    store: new NoticeStore(temp.path, logger),
    hold: () => holdNotifying(temp.path),
    clock,
    logger,
    ...given,
  });
  running.push(notifier);
  notifier.start();
  return notifier;
}

async function arrives(channel: HandChannel, count: number): Promise<void> {
  await until(`${count} deliveries`, () => channel.arrived.length >= count);
}

const file = (): string => join(temp.path, 'pending.json');
const written = (): string => (existsSync(file()) ? readFileSync(file(), 'utf8') : '');

it('notifies of what a watcher sees, with the link, and replaces it when it is settled', async () => {
  start();
  await until('it listens', () => watcher.listeners === 1);
  watcher.show(asking(clock.now()));
  await arrives(phone, 1);
  watcher.show(sessionIn('busy', clock.now()));
  await arrives(phone, 2);
  expect(phone.events).toEqual(['permission', 'settled']);
  expect(phone.shown.size).toBe(1);
  expect(phone.arrived[0]?.notice.link).toBe('http://desk.tail.ts.net:4095/#/s/desk-web/ses_1/per_1');
});

it('checks by itself when something is due', async () => {
  start();
  watcher.show(asking(clock.now()));
  await arrives(phone, 1);
  await until('it rests', () => clock.due(10 * MINUTE) > 0);
  await clock.advance(10 * MINUTE);
  await arrives(phone, 2);
  expect(phone.events).toEqual(['permission', 'unanswered']);
});

it('does not notify of a turn that a call follows', async () => {
  start();
  watcher.show(sessionIn('busy', clock.now()));
  followed.set('ses_1', { untilMs: Number.POSITIVE_INFINITY, sawEnd: true });
  await clock.advance(MINUTE);
  watcher.show(sessionIn('idle', clock.now()), asking(clock.now(), { id: 'ses_2' }));
  await arrives(phone, 1);
  expect(phone.arrived.map(({ notice }) => notice.session?.id)).toEqual(['ses_2']);
});

describe('over a restart', () => {
  it('nothing is delivered twice, and nothing undelivered is lost', async () => {
    phone.error = DEAD;
    const first = start([named('phone', phone), named('other', other)]);
    watcher.show(sessionIn('busy', clock.now(), { id: 'ses_9' }), asking(clock.now()));
    await arrives(other, 1);
    await clock.advance(MINUTE);
    watcher.show(sessionIn('idle', clock.now(), { id: 'ses_9' }), asking(clock.now()));
    await arrives(other, 2);
    await first.close();
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(written()).toContain('rm -rf build');

    phone.error = undefined;
    start([named('phone', phone), named('other', other)]);
    await arrives(phone, 2);
    expect([...phone.shown.keys()].toSorted()).toEqual([...other.shown.keys()].toSorted());
    expect(other.arrived.length).toBe(2);
  });

  it('what happened meanwhile is delivered: an answer, an end, a request', async () => {
    const first = start();
    watcher.show(sessionIn('busy', clock.now(), { id: 'ses_9', title: 'long' }), asking(clock.now()));
    await arrives(phone, 1);
    await first.close();
    await clock.advance(MINUTE);
    watcher.show(
      sessionIn('idle', clock.now(), { id: 'ses_9', title: 'long' }),
      sessionIn('busy', clock.now()),
      asking(clock.now(), { id: 'ses_3', request: 'per_3' }),
    );
    start();
    await arrives(phone, 4);
    expect([...phone.events].toSorted()).toEqual(['done', 'permission', 'permission', 'settled']);
    expect(phone.shown.size).toBe(3);
  });

  it('a process killed during a delivery leaves it to the next, under the same id', async () => {
    phone.hold();
    start();
    watcher.show(asking(clock.now()));
    await until('it is written down', () => phone.tries === 1 && written().includes('per_1'));
    const copy = join(temp.path, 'killed');
    cpSync(file(), join(copy, 'pending.json'));
    const next = new HandChannel();
    start([named('phone', next)], {
      store: new NoticeStore(copy, logger),
      hold: async () => async () => {},
    });
    await arrives(next, 1);
    phone.release();
    await arrives(phone, 1);
    expect([...next.shown.keys()]).toEqual([...phone.shown.keys()]);
  });

  it.each(['', '{', '{"version":2}', '[]'])('an unusable file (%j) stops no notification', async (text) => {
    writeFileSync(file(), text);
    watcher.show(asking(clock.now()));
    start();
    await arrives(phone, 1);
    expect(logged[0]).toMatch(/^warn cannot read pending notifications; starting without them/);
  });
});

describe('a flood of 500 events with a restart, a dead channel and a slow one', () => {
  it('loses no request, gives each fact one id, and delays no other channel', async () => {
    const slow = new HandChannel();
    slow.hold();
    phone.error = DEAD;
    const channels = [named('phone', phone), named('slow', slow), named('other', other)];
    const first = start(channels);
    const ids = Array.from({ length: 250 }, (_, count) => `ses_${count}`);
    const show = (state: 'busy' | 'idle') =>
      watcher.show(
        ...ids.map((id) => sessionIn(state, clock.now(), { id: `${id}x` })),
        ...ids.map((id) => asking(clock.now(), { id, request: `per_${id}` })),
      );
    show('busy');
    await until('the requests arrive', () => other.arrived.length === 250);
    await clock.advance(MINUTE);
    show('idle');
    await until('the ends arrive', () => other.arrived.length === 270);
    await clock.advance(MINUTE);
    await until('the summary of the rest', () => other.events.includes('summary'));
    expect(slow.arrived).toEqual([]);
    await first.close();

    phone.error = undefined;
    slow.release();
    start(channels);
    for (const channel of [phone, slow]) {
      await until('all of it arrives', async () => {
        await clock.advance(MINUTE / 2);
        return channel.events.includes('summary');
      });
    }
    for (const channel of [phone, slow, other]) {
      const requests = [...channel.shown.values()].filter((notice) => notice.event === 'permission');
      expect(requests.length).toBe(250);
      expect(channel.shown.size).toBe(271);
      expect([...channel.shown.values()].find((notice) => notice.event === 'summary')?.counts).toEqual({ done: 230 });
    }
    expect(other.arrived.length).toBe(271);
  });
});

/** Starts another process of the same state directory, and waits until it has noticed the first. */
async function startSecond(): Promise<Notifier> {
  const second = start([named('phone', other)]);
  await until('it sees the first', () =>
    logged.some((line) => line.includes('another process of this user sends the notifications')),
  );
  return second;
}

it('one process of a state directory notifies, and another takes over when it ends', async () => {
  const first = start();
  await until('it listens', () => watcher.listeners === 1);
  await startSecond();
  watcher.show(asking(clock.now()));
  await arrives(phone, 1);
  expect(watcher.listeners).toBe(1);
  await first.close();
  await until('it takes over', async () => {
    await clock.advance(5_000);
    return watcher.listeners === 1;
  });
  watcher.show(sessionIn('busy', clock.now()));
  await arrives(other, 1);
  expect([phone.events, other.events]).toEqual([['permission'], ['settled']]);
});

it('a process that ends before its turn delivers nothing', async () => {
  phone.hold();
  start();
  watcher.show(asking(clock.now()));
  await until('it is written down', () => phone.tries === 1 && written().includes('per_1'));
  const second = await startSecond();
  await second.close();
  expect(other.tries).toBe(0);
  expect(logged.filter((line) => line.startsWith('info notifying'))).toHaveLength(1);
  phone.release();
});

it('writes only changes', async () => {
  const store = new NoticeStore(temp.path, logger);
  const memory: Memory = new Map([['reg-1', { lookedMs: 1, runs: new Map(), waits: new Map() }]]);
  await store.write({ memory, outboxes: new Map() });
  rmSync(file());
  memory.set('reg-1', { lookedMs: 2, runs: new Map(), waits: new Map() });
  await store.write({ memory, outboxes: new Map() });
  expect(existsSync(file())).toBe(false);
  memory.get('reg-1')?.runs.set('ses_1', { turnMs: 1, isStalled: false });
  await store.write({ memory, outboxes: new Map() });
  expect((await store.read()).memory).toEqual(memory);
});

it('a folder whose path is too long for a socket gets none, here or elsewhere', async () => {
  const above = join(temp.path, 'x'.repeat(108 - temp.path.length));
  await expect(holdNotifying(join(above, 'state'))).rejects.toThrow(/at most 103/);
  expect(readdirSync(temp.path).filter((name) => name.startsWith('x'))).toEqual([]);
});

it("of processes that find a killed one's socket together, one notifies, and another after that has ended", async () => {
  writeFileSync(join(temp.path, 'running.sock'), '');
  for (let time = 0; time < 2; time += 1) {
    const held = await Promise.all(Array.from({ length: 8 }, () => holdNotifying(temp.path)));
    const holders = held.filter((release) => release !== undefined);
    expect(holders).toHaveLength(1);
    expect(await holdNotifying(temp.path)).toBeUndefined();
    await Promise.all(holders.map((release) => release()));
  }
});

it('a store that cannot be written is logged once, and notices still arrive', async () => {
  const folder = join(temp.path, 'folder');
  writeFileSync(folder, '');
  const notifier = start([named('phone', phone)], {
    followed: () => Promise.reject(new Error('EACCES')),
    store: new NoticeStore(folder, logger),
    hold: () => holdNotifying(folder),
    clock: systemClock,
  });
  watcher.show(asking(Date.now()));
  await arrives(phone, 1);
  await settle();
  watcher.show(sessionIn('busy', Date.now()));
  await arrives(phone, 2);
  await notifier.close();
  expect(logged.filter((line) => line.includes('cannot write pending notifications')).length).toBe(1);
});

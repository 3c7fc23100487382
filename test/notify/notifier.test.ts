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
let notifiers: Notifier[];
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
  notifiers = [];
});

afterEach(async () => {
  await Promise.all(notifiers.map((notifier) => notifier.close()));
  await temp.close();
});

function channelNamed(name: string, channel: Channel): { rules: ChannelRules; channel: Channel } {
  return { rules: { name, text: 'full', events: NOTIFY_EVENTS, instances: [] }, channel };
}

function start(channels = [channelNamed('phone', phone)], overrides: Partial<NotifierDeps> = {}): Notifier {
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
    ...overrides,
  });
  notifiers.push(notifier);
  notifier.start();
  return notifier;
}

async function untilDelivered(channel: HandChannel, count: number): Promise<void> {
  await until(`${count} deliveries`, () => channel.arrived.length >= count);
}

const file = (): string => join(temp.path, 'pending.json');
const storedText = (): string => (existsSync(file()) ? readFileSync(file(), 'utf8') : '');

it('notifies of a permission with its link, and replaces the notice when the permission is settled', async () => {
  start();
  await until('the notifier to listen', () => watcher.listeners === 1);
  watcher.show(asking(clock.now()));
  await untilDelivered(phone, 1);
  watcher.show(sessionIn('busy', clock.now()));
  await untilDelivered(phone, 2);
  expect(phone.events).toEqual(['permission', 'settled']);
  expect(phone.shown.size).toBe(1);
  expect(phone.arrived[0]?.notice.link).toBe('http://desk.tail.ts.net:4095/#/s/desk-web/ses_1/per_1');
});

it('repeats an unanswered request when it is due, without a change in the watcher', async () => {
  start();
  watcher.show(asking(clock.now()));
  await untilDelivered(phone, 1);
  await until('the timer of the repetition', () => clock.due(10 * MINUTE) > 0);
  await clock.advance(10 * MINUTE);
  await untilDelivered(phone, 2);
  expect(phone.events).toEqual(['permission', 'unanswered']);
});

it('does not notify of a turn that a call follows', async () => {
  start();
  watcher.show(sessionIn('busy', clock.now()));
  followed.set('ses_1', { untilMs: Number.POSITIVE_INFINITY, sawEnd: true });
  await clock.advance(MINUTE);
  watcher.show(sessionIn('idle', clock.now()), asking(clock.now(), { id: 'ses_2' }));
  await untilDelivered(phone, 1);
  expect(phone.arrived.map(({ notice }) => notice.session?.id)).toEqual(['ses_2']);
});

describe('across a restart', () => {
  it('no notice is delivered twice, and no undelivered notice is lost', async () => {
    phone.error = DEAD;
    const first = start([channelNamed('phone', phone), channelNamed('other', other)]);
    watcher.show(sessionIn('busy', clock.now(), { id: 'ses_9' }), asking(clock.now()));
    await untilDelivered(other, 1);
    await clock.advance(MINUTE);
    watcher.show(sessionIn('idle', clock.now(), { id: 'ses_9' }), asking(clock.now()));
    await untilDelivered(other, 2);
    await first.close();
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(storedText()).toContain('rm -rf build');

    phone.error = undefined;
    start([channelNamed('phone', phone), channelNamed('other', other)]);
    await untilDelivered(phone, 2);
    expect([...phone.shown.keys()].toSorted()).toEqual([...other.shown.keys()].toSorted());
    expect(other.arrived.length).toBe(2);
  });

  it('notices of changes during the restart are delivered: of an answer, the end of a turn, and a request', async () => {
    const first = start();
    watcher.show(sessionIn('busy', clock.now(), { id: 'ses_9', title: 'long' }), asking(clock.now()));
    await untilDelivered(phone, 1);
    await first.close();
    await clock.advance(MINUTE);
    watcher.show(
      sessionIn('idle', clock.now(), { id: 'ses_9', title: 'long' }),
      sessionIn('busy', clock.now()),
      asking(clock.now(), { id: 'ses_3', request: 'per_3' }),
    );
    start();
    await untilDelivered(phone, 4);
    expect([...phone.events].toSorted()).toEqual(['done', 'permission', 'permission', 'settled']);
    expect(phone.shown.size).toBe(3);
  });

  it('a notice whose process was killed during the delivery is delivered by the next process, under the same id', async () => {
    phone.hold();
    start();
    watcher.show(asking(clock.now()));
    await until('the notice to be stored', () => phone.tries === 1 && storedText().includes('per_1'));
    const copy = join(temp.path, 'killed');
    cpSync(file(), join(copy, 'pending.json'));
    const next = new HandChannel();
    start([channelNamed('phone', next)], {
      store: new NoticeStore(copy, logger),
      hold: async () => async () => {},
    });
    await untilDelivered(next, 1);
    phone.release();
    await untilDelivered(phone, 1);
    expect([...next.shown.keys()]).toEqual([...phone.shown.keys()]);
  });

  it.each(['', '{', '{"version":2}', '[]'])('an unusable file (%j) stops no notification', async (text) => {
    writeFileSync(file(), text);
    watcher.show(asking(clock.now()));
    start();
    await untilDelivered(phone, 1);
    expect(logged[0]).toMatch(/^warn cannot read pending notifications; starting without them/);
  });
});

describe('a flood of 500 events with a restart, a failing channel and a slow channel', () => {
  it('loses no request, gives each event one id, and delays no other channel', async () => {
    const slow = new HandChannel();
    slow.hold();
    phone.error = DEAD;
    const channels = [channelNamed('phone', phone), channelNamed('slow', slow), channelNamed('other', other)];
    const first = start(channels);
    const ids = Array.from({ length: 250 }, (_, count) => `ses_${count}`);
    const show = (state: 'busy' | 'idle') =>
      watcher.show(
        ...ids.map((id) => sessionIn(state, clock.now(), { id: `${id}x` })),
        ...ids.map((id) => asking(clock.now(), { id, request: `per_${id}` })),
      );
    show('busy');
    await until('the requests to arrive', () => other.arrived.length === 250);
    await clock.advance(MINUTE);
    show('idle');
    await until('the first ends of turns to arrive', () => other.arrived.length === 270);
    await clock.advance(MINUTE);
    await until('the summary of the rest', () => other.events.includes('summary'));
    expect(slow.arrived).toEqual([]);
    await first.close();

    phone.error = undefined;
    slow.release();
    start(channels);
    for (const channel of [phone, slow]) {
      await until('everything to arrive', async () => {
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

/** Starts a second notifier on the same state directory, and waits until it has noticed the first. */
async function startSecond(): Promise<Notifier> {
  const second = start([channelNamed('phone', other)]);
  await until('the second notifier to notice the first', () =>
    logged.some((line) => line.includes('another process of this user sends the notifications')),
  );
  return second;
}

it('only one notifier of a state directory notifies, and another takes over when the first ends', async () => {
  const first = start();
  await until('the notifier to listen', () => watcher.listeners === 1);
  await startSecond();
  watcher.show(asking(clock.now()));
  await untilDelivered(phone, 1);
  expect(watcher.listeners).toBe(1);
  await first.close();
  await until('the second notifier to listen', async () => {
    await clock.advance(5_000);
    return watcher.listeners === 1;
  });
  watcher.show(sessionIn('busy', clock.now()));
  await untilDelivered(other, 1);
  expect([phone.events, other.events]).toEqual([['permission'], ['settled']]);
});

it('a notifier that ends before it has taken over delivers nothing', async () => {
  phone.hold();
  start();
  watcher.show(asking(clock.now()));
  await until('the notice to be stored', () => phone.tries === 1 && storedText().includes('per_1'));
  const second = await startSecond();
  await second.close();
  expect(other.tries).toBe(0);
  expect(logged.filter((line) => line.startsWith('info notifying'))).toHaveLength(1);
  phone.release();
});

it('the store writes its file only if something that it keeps has changed', async () => {
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

it('a folder whose path is too long for a socket is refused, and no socket is made elsewhere', async () => {
  const above = join(temp.path, 'x'.repeat(108 - temp.path.length));
  await expect(holdNotifying(join(above, 'state'))).rejects.toThrow(/at most 103/);
  expect(readdirSync(temp.path).filter((name) => name.startsWith('x'))).toEqual([]);
});

it('only one of eight processes that find the socket of a killed process may notify, and another once it has ended', async () => {
  writeFileSync(join(temp.path, 'running.sock'), '');
  for (let time = 0; time < 2; time += 1) {
    const releases = await Promise.all(Array.from({ length: 8 }, () => holdNotifying(temp.path)));
    const holders = releases.filter((release) => release !== undefined);
    expect(holders).toHaveLength(1);
    expect(await holdNotifying(temp.path)).toBeUndefined();
    await Promise.all(holders.map((release) => release()));
  }
});

it('a store that cannot be written is logged once, and notices still arrive', async () => {
  const folder = join(temp.path, 'folder');
  writeFileSync(folder, '');
  const notifier = start([channelNamed('phone', phone)], {
    followed: () => Promise.reject(new Error('EACCES')),
    store: new NoticeStore(folder, logger),
    hold: () => holdNotifying(folder),
    clock: systemClock,
  });
  watcher.show(asking(Date.now()));
  await untilDelivered(phone, 1);
  await settle();
  watcher.show(sessionIn('busy', Date.now()));
  await untilDelivered(phone, 2);
  await notifier.close();
  expect(logged.filter((line) => line.includes('cannot write pending notifications')).length).toBe(1);
});

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Logger } from '../../src/base/log.ts';
import { type ChannelRules, NOTIFY_EVENTS } from '../../src/config/notify.ts';
import { DeliveryError } from '../../src/notify/channels/channel.ts';
import type { Notice } from '../../src/notify/notice.ts';
import { Outbox } from '../../src/notify/outbox.ts';
import { ManualClock, settle } from '../fleet/manual-clock.ts';
import { DEAD, HandChannel } from './hand-channel.ts';

const SECOND = 1_000;
const MINUTE = 60_000;
const DAY = 86_400_000;

let clock: ManualClock;
let channel: HandChannel;
let outbox: Outbox;
let logged: string[];
let changes: number;
const logger: Logger = {
  log: (level, message, fields) => logged.push(`${level} ${message} ${JSON.stringify(fields)}`),
};

beforeEach(() => {
  clock = new ManualClock();
  channel = new HandChannel();
  logged = [];
  changes = 0;
  outbox = openOutbox();
});

afterEach(() => outbox.close());

function openOutbox(rules: Partial<ChannelRules> = {}, kept?: Outbox['kept']): Outbox {
  const all: ChannelRules = { name: 'phone', text: 'full', events: NOTIFY_EVENTS, instances: [], ...rules };
  const opened = new Outbox({ rules: all, channel, clock, logger, onChange: () => void (changes += 1) });
  if (kept !== undefined) opened.restore(kept);
  opened.start();
  return opened;
}

async function reopen(rules: Partial<ChannelRules>): Promise<void> {
  await outbox.close();
  outbox = openOutbox(rules);
}

function notice(event: Notice['event'], id = 'one', fields: Partial<Notice> = {}): Notice {
  return { id, event, atMs: clock.now(), host: 'desk', instance: 'desk-web', ...fields };
}

/** Offers notices and waits for the deliveries that need no timer. */
async function offer(...notices: readonly Notice[]): Promise<void> {
  for (const one of notices) outbox.offer(one);
  await settle();
}

describe('delivery', () => {
  it('delivers immediately, and keeps only the data needed to replace a request', async () => {
    await offer(notice('permission'), notice('done', 'two'));
    expect(channel.events).toEqual(['permission', 'done']);
    expect(outbox.kept).toEqual({ pending: [], shown: [['one', 'at 1']] });
    expect(changes).toBeGreaterThan(0);
  });

  it('retries at growing intervals up to a minute, and logs the failure once', async () => {
    channel.error = DEAD;
    outbox.offer(notice('permission'));
    const tries: number[] = [];
    for (const ms of [0, SECOND, 2 * SECOND, 4 * SECOND]) {
      await clock.advance(ms);
      tries.push(channel.tries);
    }
    expect(tries).toEqual([1, 2, 3, 4]);
    await clock.advance(60 * MINUTE);
    // One retry a minute at most.
    expect(channel.tries).toBeLessThan(70);
    expect(logged).toEqual([
      'warn cannot deliver a notification; trying again {"channel":"phone","to":"by hand","reason":"ECONNREFUSED"}',
    ]);
    channel.error = undefined;
    await clock.advance(MINUTE);
    expect(channel.events).toEqual(['permission']);
    expect(logged.at(-1)).toContain('info notifications arrive again');
  });

  it('delivers other notices while one is refused, and finally drops the refused notice', async () => {
    channel.error = new DeliveryError('refused', 'HTTP 400');
    await offer(notice('failed', 'bad'));
    channel.error = undefined;
    const deliver = channel.deliver.bind(channel);
    channel.deliver = async (one, ...rest) => {
      if (one.id === 'bad') throw new DeliveryError('refused', 'HTTP 400');
      return deliver(one, ...rest);
    };
    await offer(notice('done', 'good'));
    expect(channel.events).toEqual(['done']);
    await clock.advance(10 * MINUTE);
    expect(outbox.kept.pending).toEqual([]);
    expect(logged.at(-1)).toContain('error a notification was dropped: its channel refuses it');
  });

  it('drops notices without a retry if this machine lacks the program of the channel', async () => {
    channel.error = new DeliveryError('absent', 'no such program');
    await offer(notice('permission'));
    outbox.offer(notice('permission', 'two'));
    await clock.advance(DAY);
    expect([channel.tries, outbox.kept.pending.length, logged.length]).toEqual([1, 0, 1]);
  });

  it('drops events that need no action after a day, but never drops a request', async () => {
    channel.error = DEAD;
    outbox.offer(notice('done', 'old'));
    outbox.offer(notice('question', 'request'));
    await clock.advance(2 * DAY);
    expect(outbox.kept.pending.map((one) => one.notice.id)).toEqual(['request']);
    channel.error = undefined;
    await clock.advance(MINUTE);
    expect(channel.events).toEqual(['question']);
  });

  it('delivers requests before other events', async () => {
    channel.hold();
    await offer(notice('done', 'first'));
    outbox.offer(notice('failed', 'second'));
    outbox.offer(notice('permission', 'third'));
    channel.release();
    await settle();
    expect(channel.events).toEqual(['done', 'permission', 'failed']);
  });
});

describe('notices with the same id', () => {
  it('are retried as the newest one only', async () => {
    channel.hold();
    await offer(notice('permission'));
    await offer(notice('unanswered'));
    channel.error = DEAD;
    channel.release();
    await settle();
    channel.error = undefined;
    await clock.advance(SECOND);
    expect(channel.events).toEqual(['unanswered']);
  });

  it('a settlement replaces the delivered request, and neither is kept', async () => {
    await offer(notice('permission'));
    await offer(notice('settled'));
    expect(channel.arrived.map(({ notice, replaces }) => [notice.event, replaces])).toEqual([
      ['permission', undefined],
      ['settled', 'at 1'],
    ]);
    expect(outbox.kept).toEqual({ pending: [], shown: [] });
  });

  it('a request that is settled before its delivery is not delivered', async () => {
    channel.hold();
    await offer(notice('permission', 'ahead'));
    outbox.offer(notice('permission'));
    outbox.offer(notice('settled'));
    channel.release();
    await settle();
    expect([...channel.shown.keys()]).toEqual(['ahead']);
  });

  it('a request that is settled during its delivery is replaced', async () => {
    channel.hold();
    await offer(notice('permission'));
    outbox.offer(notice('settled'));
    channel.release();
    await settle();
    expect(channel.events).toEqual(['permission', 'settled']);
  });

  it('a settlement is delivered after a failed request, which may have arrived', async () => {
    channel.error = DEAD;
    await offer(notice('permission'));
    channel.error = undefined;
    outbox.offer(notice('settled'));
    await clock.advance(SECOND);
    expect(channel.events).toEqual(['settled']);
  });
});

describe('after a restart', () => {
  it('a settlement replaces a request that may have arrived before the restart', async () => {
    await offer(notice('permission', 'shown'));
    const { shown } = outbox.kept;
    await outbox.close();
    channel.hold();
    // The state that a process wrote before it was killed during the delivery.
    const pending = ['ahead', 'maybe'].map((id) => ({ notice: notice('permission', id), fromMs: 0, attempts: 0 }));
    outbox = openOutbox({}, { pending, shown });
    outbox.offer(notice('settled', 'shown'));
    outbox.offer(notice('settled', 'maybe'));
    channel.release();
    await clock.advance(MINUTE);
    expect(channel.arrived.slice(1).map(({ notice, replaces }) => [notice.id, notice.event, replaces])).toEqual(
      expect.arrayContaining([
        ['shown', 'settled', 'at 1'],
        ['maybe', 'settled', undefined],
      ]),
    );
  });
});

describe('the rules of a channel', () => {
  it('select events', async () => {
    await reopen({ events: ['failed', 'unanswered'] });
    for (const event of NOTIFY_EVENTS) outbox.offer(notice(event, event));
    await settle();
    expect([...channel.events].toSorted()).toEqual(['failed', 'unanswered']);
  });

  it('select instances by patterns', async () => {
    await reopen({ instances: ['laptop*', 'desk-w*'] });
    await offer(notice('done', 'one', { instance: 'desk-web' }), notice('done', 'two', { instance: 'desk-api' }));
    expect(channel.arrived.map((one) => one.notice.id)).toEqual(['one']);
  });

  it('set hours, outside which requests wait and other events are dropped', async () => {
    const now = new Date(clock.now());
    const minute = now.getHours() * 60 + now.getMinutes();
    await reopen({ hours: { from: (minute + 60) % 1_440, to: (minute + 120) % 1_440 } });
    outbox.offer(notice('permission', 'waits'));
    outbox.offer(notice('permission', 'settled'));
    outbox.offer(notice('done', 'done'));
    await clock.advance(58 * MINUTE);
    outbox.offer(notice('settled', 'settled'));
    expect(channel.tries).toBe(0);
    await clock.advance(2 * MINUTE);
    expect([...channel.shown.keys()]).toEqual(['waits']);
    await offer(notice('done', 'later'));
    expect([...channel.shown.keys()]).toEqual(['waits', 'later']);
  });
});

it('a machine that slept delivers within a minute of waking', async () => {
  const now = new Date(clock.now());
  const minute = now.getHours() * 60 + now.getMinutes();
  await reopen({ hours: { from: (minute + 600) % 1_440, to: (minute + 660) % 1_440 } });
  outbox.offer(notice('permission'));
  await settle();
  // During sleep the clock advances, but no timer runs.
  clock.step(600 * MINUTE);
  await clock.advance(MINUTE);
  expect(channel.events).toEqual(['permission']);
});

describe('a flood of notices', () => {
  it('of 500 at once is delivered as 20 notices and a summary of the rest', async () => {
    for (let count = 0; count < 400; count += 1) outbox.offer(notice('done', `done ${count}`));
    for (let count = 0; count < 100; count += 1) outbox.offer(notice('failed', `failed ${count}`));
    await clock.advance(MINUTE);
    expect(channel.tries).toBe(21);
    expect(channel.arrived.at(-1)?.notice).toMatchObject({ event: 'summary', counts: { done: 380, failed: 100 } });
  });

  it('over hours keeps at most 20 notices and a summary if no delivery succeeds', async () => {
    channel.error = DEAD;
    for (let count = 0; count < 100; count += 1) {
      outbox.offer(notice('done', `done ${count}`));
      await clock.advance(MINUTE);
    }
    expect(outbox.kept.pending.length).toBe(21);
    const sum = outbox.kept.pending.find((one) => one.notice.event === 'summary');
    expect(sum?.notice.counts).toEqual({ done: 80 });
  });

  it('over 50 minutes is delivered as single notices and summaries that count every notice', async () => {
    for (let count = 0; count < 500; count += 1) {
      outbox.offer(notice('done', `done ${count}`));
      await clock.advance(6 * SECOND);
    }
    await clock.advance(MINUTE);
    const notices = channel.arrived.map((one) => one.notice);
    const counted = notices.reduce((sum, { counts = { done: 1 } }) => sum + (counts.done ?? 0), 0);
    expect(counted).toBe(500);
    // In 50 minutes: the first 20 notices, then one notice and one summary per half minute.
    expect(notices.length).toBeLessThanOrEqual(20 + 2 * 101);
  });
});

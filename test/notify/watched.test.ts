import { afterEach, beforeEach, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { NOTIFY_EVENTS } from '../../src/config/notify.ts';
import { OwnPorts } from '../../src/node/access/own-ports.ts';
import { ntfyChannel } from '../../src/notify/channels/ntfy.ts';
import { NoticeStore } from '../../src/notify/notice-store.ts';
import { Notifier } from '../../src/notify/notifier.ts';
import { holdNotifying } from '../../src/notify/sole-notifier.ts';
import { readListeners } from '../../src/base/socket-table.ts';
import { type FakeNtfy, startFakeNtfy } from '../rig/fake-ntfy.ts';
import { type FakeOpencode, startFakeOpencode } from '../rig/fake-opencode.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { until } from '../rig/wait.ts';
import { openWatchWorld, type WatchWorld } from '../watch/world.ts';

const DIRECTORY = '/home/user/project';

let temp: TempDir;
let fake: FakeOpencode;
let ntfy: FakeNtfy;
let open: AsyncDisposable[];

beforeEach(async () => {
  temp = tempDir('notify-watched');
  fake = await startFakeOpencode({ directory: DIRECTORY });
  ntfy = await startFakeNtfy();
  open = [];
});
afterEach(async () => {
  for (const one of open.toReversed()) await one[Symbol.asyncDispose]();
  await ntfy.close();
  await fake.close();
  await temp.close();
});

/** A machine's watcher with notifications to the one topic. */
async function machine(name: string, ports?: OwnPorts): Promise<WatchWorld> {
  const world = await openWatchWorld(ports === undefined ? {} : { ports });
  open.push(world);
  const rules = { name: 'phone', text: 'full', events: NOTIFY_EVENTS, instances: [] } as const;
  const target = { type: 'ntfy', url: ntfy.url, topic: 'agents' } as const;
  const stateDir = `${temp.path}/${name}`;
  const notifier = new Notifier({
    settings: { minTurnSeconds: 0, repeatAfterMinutes: 10, stalledAfterMinutes: 10 },
    channels: [
      { rules, channel: ntfyChannel(target, 'full', { clock: systemClock, readSecret: async () => undefined }) },
    ],
    watcher: world.watcher,
    host: name,
    linkBase: () => undefined,
    followed: async () => new Map(),
    store: new NoticeStore(stateDir, silentLogger),
    hold: () => holdNotifying(stateDir),
    clock: systemClock,
    logger: silentLogger,
  });
  open.push({ [Symbol.asyncDispose]: () => notifier.close() });
  notifier.start();
  await world.register('one', fake);
  return world;
}

function begin(title: string): string {
  const { id } = fake.addSession({ title });
  fake.state.begin(id, 'Go');
  return id;
}

test('a change of state reaches the topic', async () => {
  const world = await machine('desk');
  await world.followed('one');
  const id = begin('Fix the build');
  await world.becomes(id, 'busy');
  fake.addPermission({ sessionID: id, metadata: { command: 'rm -rf build' } });
  await until('it to arrive', () => ntfy.messages.some(({ message }) => message.includes('rm -rf build"')));
});

test('of two machines that see one instance, the one that holds its port notifies', async () => {
  // As on a relay, where the end of a tunnel listens.
  const tunnel = new OwnPorts(process.getuid?.() ?? 0, {
    readSockets: readListeners,
    holders: async () => [{ pid: 1, name: 'sshd', link: '' }],
    stillHeld: () => false,
  });
  const relay = await machine('relay', tunnel);
  const desk = await machine('desk');
  await desk.followed('one');
  await until('the relay to list nothing', async () => (await relay.instances.list()).length === 0);
  const id = begin('Fix the build');
  await desk.becomes(id, 'busy');
  fake.addPermission({ sessionID: id, metadata: { command: 'rm -rf build' } });
  await until('it to arrive', () => ntfy.messages.length > 0);
  fake.state.abort(id);
  await until('it to be settled', () => ntfy.messages.length > 1);
  expect(ntfy.messages.map(({ title }) => title)).toEqual(['Permission: Fix the build', 'Settled: Fix the build']);
  expect(relay.watcher.servers()).toEqual([]);
});

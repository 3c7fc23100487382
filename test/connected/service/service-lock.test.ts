import { execFileSync } from 'node:child_process';
import { mkdir, open, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';

import { identifyProcess, type ProcessIdentity } from '../../../src/connected/process-table.ts';
import { lockFolder, ServiceLock } from '../../../src/connected/service/service-lock.ts';
import { tempDir } from '../../rig/temp.ts';
import { NO_PID } from '../cleanup/remains.ts';

const folder = tempDir('service-lock');
afterEach(() => folder.close());

async function ownIdentity(): Promise<ProcessIdentity> {
  return (await identifyProcess(process.pid)) ?? { pid: process.pid };
}

test('only one wrapper holds the lock; another can take it once it is released', async () => {
  const self = await ownIdentity();
  const parent = (await identifyProcess(process.ppid)) ?? { pid: process.ppid };
  const first = new ServiceLock(folder.path, 'service', self);
  const second = new ServiceLock(folder.path, 'service', parent);
  const other = new ServiceLock(folder.path, 'service-beta', parent);
  expect(await first.take()).toBeUndefined();
  expect(await second.take()).toEqual(self);
  expect(await other.take()).toBeUndefined();
  // Releasing a lock that another wrapper holds changes nothing.
  await second.release();
  expect(await second.take()).toEqual(self);
  await first.release();
  expect(await second.take()).toBeUndefined();
  expect(await readdir(lockFolder(folder.path))).toEqual(['service-beta.lock', 'service.lock']);
});

test('taking a lock keeps a live lock that replaced the dead one while it was being read', async () => {
  const parent = (await identifyProcess(process.ppid)) ?? { pid: process.ppid };
  const path = join(lockFolder(folder.path), 'service.lock');
  await mkdir(lockFolder(folder.path), { recursive: true });
  execFileSync('mkfifo', [path]);
  const taking = new ServiceLock(folder.path, 'service', await ownIdentity()).take();
  // Opening the FIFO blocks until the lock reads it.
  const deadLock = await open(path, 'w');
  await rm(path);
  await writeFile(path, JSON.stringify(parent));
  await deadLock.writeFile(JSON.stringify({ pid: NO_PID }));
  await deadLock.close();
  expect(await taking).toEqual(parent);
  expect(await readdir(lockFolder(folder.path))).toEqual(['service.lock']);
});

test('exactly one of several wrappers takes over the lock of a dead process', async () => {
  const self = await ownIdentity();
  const lock = new ServiceLock(folder.path, 'service', self);
  await lock.take();
  const path = join(lockFolder(folder.path), 'service.lock');
  for (const dead of [{ pid: NO_PID }, { ...self, started: '1' }, 'half a fi']) {
    await writeFile(path, typeof dead === 'string' ? dead : JSON.stringify(dead));
    const pids = [process.pid, process.ppid];
    const locks = await Promise.all(
      pids.map(async (pid) => new ServiceLock(folder.path, 'service', (await identifyProcess(pid)) ?? { pid })),
    );
    const holders = await Promise.all(locks.map((competitor) => competitor.take()));
    expect(holders.filter((holder) => holder === undefined)).toHaveLength(1);
    expect(await readdir(lockFolder(folder.path))).toEqual(['service.lock']);
  }
});

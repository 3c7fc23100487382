import { lstat, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { silentLogger } from '../../src/base/log.ts';
import { allow, isRevoked, Revocation, revocationPath, revoke } from '../../src/node/revocation.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { tempDir } from '../rig/temp.ts';
import { until, within } from '../rig/wait.ts';
import { openNodeStage, SELF } from './stage.ts';

const never = new AbortController().signal;

function open(stateDir: string, clock: ManualClock, watch?: () => never): Revocation {
  const revocation = new Revocation({ stateDir, clock, logger: silentLogger, ...(watch && { fs: { watch } }) });
  onTestFinished(() => revocation.close());
  return revocation;
}

test('is noticed at once, in a new folder, and so is its removal', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const stateDir = join(temp.path, 'state/opencode-mcp');
  // No time passes: it is not seen by looking again and again.
  const revocation = open(stateDir, new ManualClock());
  expect(revocation.isRevoked).toBe(false);
  const revoked = revocation.until('revoked', never);
  await revoke(stateDir, 0);
  await within(revoked, 'it to be seen');
  expect((await lstat(stateDir)).mode & 0o777).toBe(0o700);
  expect(await readFile(revocationPath(stateDir), 'utf8')).toBe('1970-01-01T00:00:00.000Z\n');
  const allowed = revocation.until('allowed', never);
  expect(await allow(stateDir)).toBe(true);
  await within(allowed, 'it to be taken back');
  expect([revocation.isRevoked, await allow(stateDir)]).toEqual([false, false]);
});

test('is noticed by polling if the folder cannot be watched', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const clock = new ManualClock();
  const revocation = open(temp.path, clock, () => {
    throw Object.assign(new Error('no watches left'), { code: 'ENOSPC' });
  });
  await revoke(temp.path, 0);
  expect(revocation.isRevoked).toBe(false);
  await clock.advance(500);
  expect(revocation.isRevoked).toBe(true);
});

test('already in force: `until` resolves at once', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  await revoke(temp.path, 0);
  await within(open(temp.path, new ManualClock()).until('revoked', never), 'nothing');
});

test('`until` ends with its signal', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const ending = new AbortController();
  const waiting = open(temp.path, new ManualClock()).until('revoked', ending.signal);
  ending.abort();
  await within(waiting, 'it to stop');
});

test('any kind of file counts, and so does a path that cannot be read', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const [folder, link, loop] = ['folder', 'link', 'loop'].map((name) => join(temp.path, name));
  if (folder === undefined || link === undefined || loop === undefined) throw new Error('no names');
  await mkdir(join(folder, 'node-revoked'), { recursive: true });
  await mkdir(link);
  await symlink('/nowhere', join(link, 'node-revoked'));
  await symlink(loop, loop);
  expect([folder, link, loop].map(isRevoked)).toEqual([true, true, true]);
  const file = join(temp.path, 'file');
  await writeFile(file, '');
  expect([temp.path, join(temp.path, 'missing'), file].map(isRevoked)).toEqual([false, false, false]);
});

test('closing the service, as revoking does, cuts a terminal at both ends', async () => {
  let isInstanceClosed = false;
  await using stage = await openNodeStage({
    onUpgrade: (_, socket) => {
      socket.on('error', () => {}).once('close', () => (isInstanceClosed = true));
      socket.once('end', () => socket.end()).resume();
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
    },
  });
  const socket = await stage.connect();
  let got = '';
  socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
  const path = stage.path('/pty/p/connect');
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${SELF}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
  await until('the handshake', () => got.includes('101'));
  await stage.service.close();
  await until('both ends to be cut', () => socket.closed && isInstanceClosed);
});

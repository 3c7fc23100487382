import { lstat, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, onTestFinished, test } from 'vitest';

import { silentLogger } from '../../src/base/log.ts';
import { allow, isRevoked, Revocation, revocationPath, revoke } from '../../src/node/revocation.ts';
import { ManualClock } from '../fleet/manual-clock.ts';
import { tempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';

const never = new AbortController().signal;

function openRevocation(stateDir: string, clock: ManualClock, watch?: () => never): Revocation {
  const revocation = new Revocation({ stateDir, clock, logger: silentLogger, ...(watch && { fs: { watch } }) });
  onTestFinished(() => revocation.close());
  return revocation;
}

test('a revocation in a new folder and its removal are noticed immediately', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const stateDir = join(temp.path, 'state/opencode-mcp');
  // The clock does not advance, so only watching can notice the revocation.
  const revocation = openRevocation(stateDir, new ManualClock());
  expect(revocation.isRevoked).toBe(false);
  const revoked = revocation.until('revoked', never);
  await revoke(stateDir, 0);
  await within(revoked, 'the revocation');
  expect((await lstat(stateDir)).mode & 0o777).toBe(0o700);
  expect(await readFile(revocationPath(stateDir), 'utf8')).toBe('1970-01-01T00:00:00.000Z\n');
  const allowed = revocation.until('allowed', never);
  expect(await allow(stateDir)).toBe(true);
  await within(allowed, 'the removal');
  expect([revocation.isRevoked, await allow(stateDir)]).toEqual([false, false]);
});

test('a revocation is noticed by polling if the folder cannot be watched', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const clock = new ManualClock();
  const revocation = openRevocation(temp.path, clock, () => {
    throw Object.assign(new Error('no watches left'), { code: 'ENOSPC' });
  });
  await revoke(temp.path, 0);
  expect(revocation.isRevoked).toBe(false);
  await clock.advance(500);
  expect(revocation.isRevoked).toBe(true);
});

test('`until` resolves if the state is already reached, and when its signal aborts', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const abortController = new AbortController();
  const untilRevoked = openRevocation(temp.path, new ManualClock()).until('revoked', abortController.signal);
  abortController.abort();
  await within(untilRevoked, '`until` to resolve after the abort');
  await revoke(temp.path, 0);
  await within(openRevocation(temp.path, new ManualClock()).until('revoked', never), 'a state already reached');
});

test('a revocation file of any kind revokes, and so does a path that cannot be read', async () => {
  await using temp = tempDir('opencode-mcp-revocation');
  const at = (name: string): string => join(temp.path, name);
  await mkdir(at('folder/node-revoked'), { recursive: true });
  await mkdir(at('link'));
  await symlink('/nowhere', at('link/node-revoked'));
  await symlink(at('loop'), at('loop'));
  await writeFile(at('file'), '');
  expect(['folder', 'link', 'loop'].map((name) => isRevoked(at(name)))).toEqual([true, true, true]);
  expect(['', 'missing', 'file'].map((name) => isRevoked(at(name)))).toEqual([false, false, false]);
});

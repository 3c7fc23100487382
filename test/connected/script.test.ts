import { spawnSync } from 'node:child_process';
import { cp, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { tempDir } from '../rig/temp.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/opencode-connected', import.meta.url));

function run(program: string, ...args: readonly string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { code: status, stdout, stderr };
}

test('the script of a checkout runs through absolute and relative symbolic links', async () => {
  await using temp = tempDir('my-bin');
  const direct = join(temp.path, 'opencode-connected');
  await symlink(SCRIPT, direct);
  await mkdir(join(temp.path, 'more'));
  await symlink('../opencode-connected', join(temp.path, 'more', 'oc'));
  for (const path of [SCRIPT, direct, join(temp.path, 'more', 'oc')]) {
    const help = { code: 0, stdout: expect.stringMatching(/^opencode-connected \d+\.\d+\.\d+ starts/), stderr: '' };
    expect(run(path, '--help')).toEqual(help);
  }
});

test('the script of a checkout without a build says how to build', async () => {
  await using temp = tempDir('checkout');
  await mkdir(join(temp.path, 'scripts'));
  const script = join(temp.path, 'scripts', 'opencode-connected');
  await cp(SCRIPT, script);
  const { code, stderr } = run(script, '--help');
  expect(code).toBe(1);
  expect(stderr).toContain(
    `${temp.path}/dist/opencode-connected.js is missing; build it: cd ${temp.path} && npm ci && npm run build`,
  );
});

test('--help lists the subcommands and the settings of this program only', () => {
  const { stdout } = run(SCRIPT, '--help');
  for (const word of [
    '--headless',
    '--no-password',
    'status',
    'cleanup',
    'sessions',
    'RELAY_SSH_CMD',
    'INSTANCE_NAME',
  ]) {
    expect(stdout).toContain(word);
  }
  expect(stdout).not.toContain('DISCOVERY_INTERVAL_MS');
  // Arguments after -- are opencode's.
  expect(run(SCRIPT, 'status', '--', '--help').code).toBe(2);
});

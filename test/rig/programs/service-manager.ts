import { execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { mkdir, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestContext } from 'vitest';

import { needRoot } from '../../discovery/as-root.ts';
import { LoggedChild } from '../logged-child.ts';
import { skipFor, SYSTEM_PACKAGES } from '../needed.ts';
import { endProcessesIn } from '../processes.ts';
import { tempDir } from '../temp.ts';
import { until } from '../wait.ts';

const run = promisify(execFile);

const SYSTEMD = '/lib/systemd/systemd';

/** The control group hierarchies that this machine mounts. */
const HIERARCHIES = ['/sys/fs/cgroup', '/sys/fs/cgroup/systemd', '/sys/fs/cgroup/unified'].filter((path) =>
  existsSync(join(path, 'cgroup.procs')),
);

/** systemd checks /run to find out whether it booted the machine, so it gets its own /run. */
const BOOT = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
for group; do mkdir "$group"; echo $$ > "$group/cgroup.procs"; done
exec ${SYSTEMD} --user --log-target=console`;

/** A real systemd as the service manager of one user. */
export interface ServiceManager extends AsyncDisposable {
  /** The user's home. */
  readonly home: string;
  /** Runs a command as that user; rejects if it fails. */
  run(command: string, ...args: readonly string[]): Promise<string>;
  /** A property of a unit, by `systemctl --user show`. */
  property(unit: string, name: string): Promise<string>;
}

/** Call it first in a test that needs systemd. Without writable control groups, the test is skipped in CI too. */
export function needSystemd(context: TestContext): void {
  needRoot(context);
  skipFor(context, existsSync(SYSTEMD) ? undefined : `needs systemd: ${SYSTEM_PACKAGES}`);
  context.skip(!canCreateControlGroups(), 'needs control groups that it may write to; a container often has none');
}

function canCreateControlGroups(): boolean {
  try {
    for (const path of HIERARCHIES) {
      const group = join(path, `opencode-rig-${randomUUID()}`);
      mkdirSync(group);
      rmdirSync(group);
    }
    return HIERARCHIES.length > 0;
  } catch {
    return false;
  }
}

export async function startServiceManager(): Promise<ServiceManager> {
  const temp = tempDir('opencode-rig-systemd');
  const home = join(temp.path, 'home');
  await mkdir(home);
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: home,
    TMPDIR: temp.tmp,
    XDG_RUNTIME_DIR: '/run/user/0',
  };
  // All hierarchies need the same name: systemd copies the newest group into the others.
  const name = `opencode-rig-${randomUUID()}`;
  const groups = HIERARCHIES.map((path) => join(path, name));
  const manager = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', BOOT, 'sh', ...groups], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const logged = new LoggedChild(manager);
  const runInside = async (command: string, ...args: readonly string[]): Promise<string> => {
    const enter = ['--mount', '--target', String(manager.pid), '--', command, ...args];
    return (await run('nsenter', enter, { env, timeout: 60_000 })).stdout.trim();
  };
  const property = (unit: string, name: string): Promise<string> =>
    runInside('systemctl', '--user', 'show', '--property', name, '--value', unit);
  const close = async (): Promise<void> => {
    await logged.end('SIGTERM');
    await endProcessesIn(temp.tmp);
    for (const group of groups) await until('the control group to be empty', () => removeGroup(group));
    await temp.close();
  };
  try {
    const isActive = async (): Promise<boolean> =>
      (await property('default.target', 'ActiveState').catch(() => '')) === 'active';
    await logged.until('systemd to manage the services', isActive);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    home,
    run: runInside,
    property,
    [Symbol.asyncDispose]: close,
  };
}

/** Removes a control group with its children. Returns false while a process runs in one of them. */
async function removeGroup(path: string): Promise<boolean> {
  if (!existsSync(path)) return true;
  for (const entry of await readdir(path, { withFileTypes: true }))
    if (entry.isDirectory() && !(await removeGroup(join(path, entry.name)))) return false;
  return await rmdir(path).then(
    () => true,
    () => false,
  );
}

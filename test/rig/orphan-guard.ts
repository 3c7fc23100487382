import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import type { Writable } from 'node:stream';

import { signalGroup } from './process-group.ts';

/**
 * What is left behind when a test process dies is cleaned up twice over: by an exit hook, and
 * by a small shell that reads this process's orders from a pipe and acts when the pipe ends.
 * The shell covers SIGKILL (vitest ends a stuck worker that way), which no hook sees.
 */
const GUARD_SCRIPT = `
trap '' INT TERM HUP
groups=' '
dirs=' '
while read -r order subject; do
  case "$order" in
    group) groups="$groups$subject " ;;
    dir) dirs="$dirs$subject " ;;
    forget) groups=$(printf %s "$groups" | sed "s: $subject : :"); dirs=$(printf %s "$dirs" | sed "s: $subject : :") ;;
  esac
done
for group in $groups; do kill -KILL -- "-$group" 2>/dev/null; done
for dir in $dirs; do rm -rf -- "$dir" || { sleep 1; rm -rf -- "$dir"; }; done
`;

const groups = new Set<number>();
const directories = new Set<string>();
let orders: Writable | undefined;

/** Kills the process group of `pid` when this process ends, however it ends. The child must lead its group (`detached`). */
export function guardGroup(pid: number): void {
  groups.add(pid);
  order('group', String(pid));
}

/** Removes `path` when this process ends, however it ends. Paths with white space or a colon are refused: the guard splits on them. */
export function guardDirectory(path: string): void {
  if (/[\s:]/.test(path)) throw new Error(`Expected a path without white space or colon, got ${JSON.stringify(path)}`);
  directories.add(path);
  order('dir', path);
}

/** To be called once the group is gone, or its number could belong to someone else by the end. */
export function forgetGroup(pid: number): void {
  if (groups.delete(pid)) order('forget', String(pid));
}

export function forgetDirectory(path: string): void {
  if (directories.delete(path)) order('forget', path);
}

function order(verb: 'group' | 'dir' | 'forget', subject: string): void {
  orders ??= startGuard();
  orders.write(`${verb} ${subject}\n`);
}

function startGuard(): Writable {
  // Its own group: Ctrl-C in the terminal must not end the guard before it has done its work.
  const guard = spawn('/bin/sh', ['-c', GUARD_SCRIPT], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  guard.unref();
  // A dead guard leaves the exit hook; a test must not fail for it.
  guard.on('error', () => {});
  guard.stdin.on('error', () => {});
  (guard.stdin as Writable & { unref?: () => void }).unref?.();
  process.once('exit', () => {
    for (const pid of groups) signalGroup(pid, 'SIGKILL');
    for (const path of directories) {
      // A child that was killed a moment ago may still hold files: the guard tries again.
      try {
        rmSync(path, { recursive: true, force: true });
      } catch {}
    }
  });
  return guard.stdin;
}

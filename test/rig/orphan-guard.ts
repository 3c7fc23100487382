import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';

/**
 * A small shell cleans up when this process ends, however it ends: it reads its orders from a pipe and
 * acts when the pipe does. No exit hook sees a SIGKILL, and vitest ends a stuck worker with one.
 * Three rounds of killing: what is being started during the first is there for the next.
 */
const GUARD_SCRIPT = `
trap '' INT TERM HUP
dirs=' '
while read -r order dir; do
  case "$order" in
    guard) dirs="$dirs$dir " ;;
    forget) dirs=$(printf %s "$dirs" | sed "s: $dir : :") ;;
  esac
done
for dir in $dirs; do
  for round in 1 2 3; do
    for environ in $(grep -lszxF "TMPDIR=$dir/tmp" /proc/[0-9]*/environ); do
      pid=\${environ#/proc/}
      kill -KILL "\${pid%/environ}"
    done
  done
  rm -rf -- "$dir" || { sleep 1; rm -rf -- "$dir"; }
done
`;

let orders: Writable | undefined;

/**
 * When this process ends, kills what runs with `TMPDIR=<path>/tmp` and removes `path`. Paths with white
 * space or a colon are refused: the guard splits on them.
 */
export function guardDirectory(path: string): void {
  if (/[\s:]/.test(path)) throw new Error(`Expected a path without white space or colon, got ${JSON.stringify(path)}`);
  order('guard', path);
}

/** For a directory that its owner has removed. */
export function forgetDirectory(path: string): void {
  order('forget', path);
}

function order(verb: 'guard' | 'forget', path: string): void {
  orders ??= startGuard();
  orders.write(`${verb} ${path}\n`);
}

function startGuard(): Writable {
  // Its own group: Ctrl-C in the terminal must not end the guard before it has done its work.
  const guard = spawn('/bin/sh', ['-c', GUARD_SCRIPT], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  guard.unref();
  // Without a guard only the clean-up after a crash is missing: no reason to fail a test.
  guard.on('error', () => {});
  guard.stdin.on('error', () => {});
  // Or the pipe would keep this process alive, which would keep the pipe.
  if (guard.stdin instanceof Socket) guard.stdin.unref();
  return guard.stdin;
}

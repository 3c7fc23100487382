import { type ChildProcess, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';

/**
 * A small shell cleans up however this process ends: it reads orders from a pipe and acts when the pipe closes. Exit hooks do not see
 * a SIGKILL, with which vitest ends a stuck worker. It kills in three rounds to catch processes started during the first.
 */
const GUARD_SCRIPT = `
trap '' INT TERM HUP
dirs=' ' pids=' '
while read -r order what; do
  case "$order" in
    remove) dirs="$dirs$what " ;;
    kill) pids="$pids$what " ;;
    forget)
      dirs=$(printf %s "$dirs" | sed "s: $what : :")
      pids=$(printf %s "$pids" | sed "s: $what : :") ;;
  esac
done
for pid in $pids; do kill -KILL "$pid"; done
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

/** When this process ends, kills the processes that run with `TMPDIR=<path>/tmp` and removes `path`, which may hold neither white space nor a colon. */
export function guardDirectory(path: string): void {
  if (/[\s:]/.test(path)) throw new Error(`Expected a path without white space or colon, got ${JSON.stringify(path)}`);
  order('remove', path);
}

/** Call it once the directory has been removed. */
export function forgetDirectory(path: string): void {
  order('forget', path);
}

/** When this process ends, kills the child. */
export function guardProcess(child: ChildProcess): void {
  order('kill', String(child.pid));
  child.once('exit', () => order('forget', String(child.pid)));
}

function order(verb: 'remove' | 'kill' | 'forget', target: string): void {
  orders ??= startGuard();
  orders.write(`${verb} ${target}\n`);
}

function startGuard(): Writable {
  // In its own process group, so that Ctrl-C in the terminal does not end the guard.
  const guard = spawn('/bin/sh', ['-c', GUARD_SCRIPT], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  guard.unref();
  // Without a guard only the clean-up after a crash is missing; no test fails for that.
  guard.on('error', () => {});
  guard.stdin.on('error', () => {});
  // Otherwise the pipe would keep this process alive.
  if (guard.stdin instanceof Socket) guard.stdin.unref();
  return guard.stdin;
}

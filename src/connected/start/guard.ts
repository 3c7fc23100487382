import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Writable } from 'node:stream';

import type { ProcessIdentity } from '../process-table.ts';
import { RUNS } from '../relay/claim-script.ts';

/**
 * Reads its input, which ends when the wrapper does. Without a `done` before that, the wrapper was killed. Then the guard ends opencode,
 * which nobody could reach any more, and an ssh that still runs, and removes the state file. The input is lines; the last of each kind
 * counts:
 *
 *     opencode <pid> <start time, or ->
 *     server <the same for the process that listens, which a script may have started>
 *     ssh <the same, or nothing while there is none>
 *     state <path>
 *     done
 */
const PROGRAM = `
set -f
LC_ALL=C
trap '' HUP INT TERM QUIT TSTP
opencode= server= ssh= state=
${RUNS}
# Whether the process $1, started at $2, runs. If either start time is unknown, any process with that pid counts.
lives() { runs "$1" && { [ "$2" = - ] || [ "$since" = - ] || [ "$since" = "$2" ]; }; }
still() { lives $opencode || lives $server; }
signal() {
  ! lives $opencode || kill -"$1" \${opencode%% *}
  ! lives $server || kill -"$1" \${server%% *}
}
while IFS= read -r line; do
  case $line in
    "opencode "*) opencode=\${line#opencode } server= ;;
    "server "*) server=\${line#server } ;;
    ssh | "ssh "*) ssh=\${line#ssh} ;;
    "state "*) state=\${line#state } ;;
    done) exit 0 ;;
  esac
done
if still; then
  signal TERM
  # A stopped process does not act on TERM.
  signal CONT
  tries=0
  while still && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)); }
  done
  signal KILL
fi 2>/dev/null
# It has usually ended with its input by now. It leads a group unless it was the first ssh, which might have asked at the terminal.
if lives $ssh; then
  set -- $ssh
  kill -KILL -"$1" || kill -KILL "$1"
fi 2>/dev/null
[ -z "$state" ] || rm -f "$state" "$state.tmp"
`;

/** A small process that outlives this one and tidies up if it was killed. */
export class Guard {
  readonly #child: ChildProcessByStdio<Writable, null, null>;

  constructor() {
    // In a session of its own it survives the signals that end the terminal's processes.
    this.#child = spawn('/bin/sh', ['-c', PROGRAM], { detached: true, stdio: ['pipe', 'ignore', 'ignore'], cwd: '/' });
    this.#child.on('error', () => {});
    this.#child.stdin.on('error', () => {});
    this.#child.unref();
  }

  /** If this process is killed, the guard ends that one: opencode, the server that it has started, or the current ssh. */
  watch(what: 'opencode' | 'server' | 'ssh', identity: ProcessIdentity | undefined): void {
    const words = identity === undefined ? [what] : [what, identity.pid, identity.started ?? '-'];
    if (this.#child.stdin.writable) this.#child.stdin.write(`${words.join(' ')}\n`);
  }

  /** If this process is killed, the guard removes that file. A path with a line break cannot be sent; `cleanup` removes such a file. */
  remove(stateFile: string): void {
    if (!stateFile.includes('\n')) this.#child.stdin.write(`state ${stateFile}\n`);
  }

  /** Ends the guard: nothing is left to tidy up. */
  dismiss(): void {
    this.#child.stdin.end('done\n');
  }
}

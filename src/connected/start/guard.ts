import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Writable } from 'node:stream';

import type { ProcessIdentity } from '../process-table.ts';
import { RUNS } from '../relay/claim-script.ts';

/**
 * Waits on its input, which ends with the wrapper however that ends. Without `done` before it, the wrapper was killed: ends
 * opencode, which nobody could reach any more, and an ssh that does not hear of it, and removes the state file. What it works
 * on comes as lines, the last of each kind counts:
 *
 *     opencode <pid> <start time, or ->
 *     server <the same of the process that listens, which a script may have started>
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
# Whether the process $1, begun at $2, runs. Where either start time is not known, any of that number does.
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
  # Stopped, it would not hear it.
  signal CONT
  tries=0
  while still && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)); }
  done
  signal KILL
fi 2>/dev/null
# Mostly it has ended by now, with its input. It leads a group, unless it is the first one, which might have asked at the terminal.
if lives $ssh; then
  set -- $ssh
  kill -KILL -"$1" || kill -KILL "$1"
fi 2>/dev/null
[ -z "$state" ] || rm -f "$state" "$state.tmp"
`;

/** A small process that outlives this one by a moment and tidies up after it, should it be killed. */
export class Guard {
  readonly #child: ChildProcessByStdio<Writable, null, null>;

  constructor() {
    // A session of its own: what ends the terminal's processes must not end it too.
    this.#child = spawn('/bin/sh', ['-c', PROGRAM], { detached: true, stdio: ['pipe', 'ignore', 'ignore'], cwd: '/' });
    this.#child.on('error', () => {});
    this.#child.stdin.on('error', () => {});
    this.#child.unref();
  }

  /** What was started as opencode. */
  watch(opencode: ProcessIdentity): void {
    this.#tell('opencode', opencode);
  }

  /** The process that listens, where it is another. */
  watchServer(server: ProcessIdentity): void {
    this.#tell('server', server);
  }

  /** The ssh there is now, or none. */
  watchSsh(ssh: ProcessIdentity | undefined): void {
    this.#tell('ssh', ssh);
  }

  #tell(what: string, whom: ProcessIdentity | undefined): void {
    const words = whom === undefined ? [what] : [what, whom.pid, whom.started ?? '-'];
    if (this.#child.stdin.writable) this.#child.stdin.write(`${words.join(' ')}\n`);
  }

  /** A path with a line break cannot be passed on; its file stays for `cleanup`. */
  remove(stateFile: string): void {
    if (!stateFile.includes('\n')) this.#child.stdin.write(`state ${stateFile}\n`);
  }

  /** Nothing is left to tidy up. */
  dismiss(): void {
    this.#child.stdin.end('done\n');
  }
}

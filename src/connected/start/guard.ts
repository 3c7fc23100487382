import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Writable } from 'node:stream';

import type { ProcessIdentity } from '../process-table.ts';
import { RUNS_AND_CLAIMS } from '../relay/remote-program.ts';

/**
 * Waits on its input, which ends with the wrapper however that ends. Without `done` before it, the wrapper was killed: ends
 * opencode, which nobody could reach any more, and removes the state file. What it works on comes as lines:
 *
 *     opencode <pid> <start time, or ->
 *     state <path>
 *     done
 */
const PROGRAM = `
set -f
LC_ALL=C
trap '' HUP INT TERM QUIT TSTP
child= began= state=
${RUNS_AND_CLAIMS}
lives() { runs "$child" && { [ "$began" = - ] || [ "$since" = - ] || [ "$since" = "$began" ]; }; }
while IFS= read -r line; do
  case $line in
    "opencode "*) set -- \${line#opencode }; child=$1 began=$2 ;;
    "state "*) state=\${line#state } ;;
    done) exit 0 ;;
  esac
done
if lives; then
  kill -TERM "$child"
  # Stopped, it would not hear it.
  kill -CONT "$child"
  tries=0
  while lives && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)); }
  done
  ! lives || kill -KILL "$child"
fi 2>/dev/null
[ -z "$state" ] || rm -f "$state"
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

  get pid(): number | undefined {
    return this.#child.pid;
  }

  watch({ pid, started }: ProcessIdentity): void {
    this.#child.stdin.write(`opencode ${pid} ${started ?? '-'}\n`);
  }

  /** A path with a line break cannot be told, and its file stays for `cleanup`. */
  remove(stateFile: string): void {
    if (!stateFile.includes('\n')) this.#child.stdin.write(`state ${stateFile}\n`);
  }

  /** Nothing is left to tidy up. */
  dismiss(): void {
    this.#child.stdin.end('done\n');
  }
}

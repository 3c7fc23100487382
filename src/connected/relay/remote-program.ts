import { CLAIMS } from './claim-script.ts';

/** The sh function that chooses the registry directory; `survey/registry-place.ts` chooses by the same rule. */
const DIRECTORY = `
# Sets $dir to the absolute form of the directory $1. With $2, $1 is the default one, which all users share: if it belongs to another user,
# takes this user's own instead, and from then on always that one, so that all registrations of a user are in one place.
choose_directory() {
  dir=$1
  case $dir in
    "~") dir=$HOME ;;
    "~/"*) dir=$HOME/\${dir#"~/"} ;;
    /*) ;;
    *) fail "expected an absolute registry directory, or one that begins with ~/, got $dir" ;;
  esac
  [ -n "$2" ] || return 0
  case \${XDG_STATE_HOME-} in /*) own=$XDG_STATE_HOME ;; *) own=$HOME/.local/state ;; esac
  own=$own/opencode-mcp/registry
  if [ -d "$own" ] || { { [ -e "$dir" ] || [ -L "$dir" ]; } && [ ! -O "$dir" ]; }; then dir=$own; fi
}

# Makes and enters the directory, which must be ours alone.
enter_directory() {
  why=$(mkdir -p "$dir" 2>&1) || fail "cannot make the registry directory $dir: $why"
  # From here on all names are relative: the directory that is checked is the one that is written to, whatever replaces it.
  why=$(cd "$dir" 2>&1) && cd "$dir" || fail "cannot enter the registry directory $dir: $why"
  set -- $(ls -ldn . 2>/dev/null)
  [ "\${3-}" = "$(id -u)" ] ||
    fail "the registry directory $dir belongs to uid \${3-unknown}, not to uid $(id -u), which runs this; name another directory"
  case $1 in
    ?????????[tT]*) advice="name a folder of its own, or, if it holds registrations only, run there" ;;
    *) advice="run there" ;;
  esac
  case $1 in
    ?????w* | ????????w*) fail "the registry directory $dir can be written by its group or by others ($1); $advice: chmod go-w $dir" ;;
  esac
}
`;

const PORTS = `
# The addresses at which something listens on the port $1.
addresses() {
  if [ -r /proc/net/tcp ]; then
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
      sed -n "s/^ *[0-9]*: \\([0-9A-F]*\\):$(printf '%04X' "$1") [0-9A-F]*:0000 0A .*/\\1/p"
  else
    netstat -an 2>/dev/null | sed -n "s/^/ /;s/.* \\([^ ]*\\)[.:]$1 .*LISTEN.*/\\1/p"
  fi
}

# Whether something may listen on the port $1. Without /proc, assume that it does.
may_listen() {
  case $1 in "" | *[!0-9]*) return 0 ;; esac
  [ -r /proc/net/tcp ] || return 0
  [ -n "$(addresses "$1")" ]
}

# With GatewayPorts, sshd opens the tunnel to every machine, whatever ssh requested.
check_tunnel() {
  case $tunnel in "" | *[!0-9]*) return ;; esac
  set -- $(addresses "$tunnel")
  [ $# -gt 0 ] || say unseen
  for address in "$@"; do
    # Loopback as kernels of either byte order write it, and as netstat does.
    case $address in
      0100007F | 7F000001 | 00000000000000000000000001000000 | 00000000000000000000000000000001) ;;
      127.0.0.1 | ::1 | localhost) ;;
      *)
        say "refused its sshd opened the tunnel to other machines (GatewayPorts yes): nothing was registered; set GatewayPorts to no or clientspecified in its sshd_config, then start opencode-connected again"
        disarm
        exit 1
        ;;
    esac
  done
}
`;

/** A timer that ends a process, and the steps at its end. */
const ENDING = `
fail() {
  say "error $(printf '%s' "$1" | tr '\\n' ' ')"
  disarm
  release
  exit 1
}

# Sends TERM to process $1 in $limit seconds unless it is armed again or disarmed before. A new subshell loses a signal that arrives
# before it has dropped its parent's traps, so there are no traps at that moment. Killing the sleep does not send TERM.
arm() {
  disarm
  trap - HUP INT TERM
  (
    before=$!
    trap '[ "$!" = "$before" ] || kill -KILL "$!"; exit' TERM
    sleep "$limit" &
    wait "$!" && kill "$1"
  ) </dev/null >/dev/null 2>&1 3>&- 4>&- &
  timer=$!
  trap finish HUP INT TERM
}

disarm() {
  [ -z "$timer" ] || { kill "$timer"; wait "$timer"; } 2>/dev/null
  timer=
}

finish() {
  disarm
  release
  say released
  exit 0
}
`;

const REGISTRATION = `
# Writes the line $1 to the file $2 with mode $3, whole or not at all; sets $why if it fails.
put() {
  [ ! -d "$2" ] || { why="$2 is a directory"; return 1; }
  why=$({ printf '%s\\n' "$1" | cat >"$tmp" && chmod "$3" "$tmp" && mv -f "$tmp" "$2"; } 2>&1) && return 0
  rm -f "$tmp" 2>/dev/null
  return 1
}

keep_password() {
  [ -n "$password" ] || return 0
  why=$({ [ -d ./.credentials ] || mkdir ./.credentials; chmod 700 ./.credentials; } 2>&1) &&
    put "$password" "./.credentials/$id" 600 ||
    fail "cannot write the password below the registry directory $dir: $why"
}

register() {
  mine || fail "the name $name was taken over in the registry directory $dir"
  put "$json" "./$name.json" 644 || fail "cannot write the registration $name.json in the registry directory $dir: $why"
}

# Restores what a cleaner of temporary files removed.
keep_up() {
  if [ ! -e "./.$name.claim" ]; then
    draft_claim && ln "$tmp" "./.$name.claim"
    rm -f "$tmp"
  fi 2>/dev/null
  mine || fail "the name $name was taken over in the registry directory $dir"
  touch "./.$name.claim" 2>/dev/null
  if [ -n "$password" ] && [ ! -e "./.credentials/$id" ]; then keep_password; fi
  if [ -n "$json" ] && [ ! -e "./$name.json" ]; then register; fi
}

# Reads the lines after the header until they end.
serve() {
  exec 4>&1
  timer=
  self=$(exec sh -c 'echo "$PPID"')
  arm "$self"
  echo "$timer"
  json=
  keep_password
  say "claimed $name"
  while IFS= read -r line; do
    arm "$self"
    echo "$timer"
    case $line in
      "") keep_up && say beat ;;
      *) json=$line && register && say registered ;;
    esac
  done
  disarm
  echo -
  finish
}

# Tidies up after serve. Reads the timers' pids from a pipe that only serve and its children hold.
guard() {
  exec 3>&-
  trap "" HUP INT TERM
  timer=-
  while read -r line; do timer=$line; done
  [ "$timer" = - ] || kill "$timer" 2>/dev/null
  release
}
`;

/**
 * The program at the relay's end of the SSH connection, in POSIX sh: dash, busybox and bash run it. It has no
 * settings of its own; it reads everything as lines on its standard input:
 *
 *     tunnel <the tunnel's port on the relay, if there is a tunnel>
 *     probe <yes: only test the tunnel; the program makes nothing and answers `registered`>
 *     directory <the registry directory; absolute, or beginning with ~/>
 *     default <yes: nobody chose that directory>
 *     id <the instance's id>
 *     name <the wanted name>
 *     place <here: registers on the instance's own machine, which may be its relay too>
 *     keep <the name of the previous connection, if there was one>
 *     password <the instance's password, if it has one>
 *     limit <seconds without a line after which the other side counts as gone>
 *     <an empty line ends the header>
 *     {…}   a registration, as often as it changes
 *     <an empty line: a heartbeat>
 *
 * It answers with lines: `opencode-connected 1` when it runs; `unseen` if it cannot see at which addresses the tunnel listens;
 * `directory <path>` if it took another directory; `claimed <name>`, `registered`, `beat`; and last `released`, or
 * `error <reason>` for an early end, or `refused <reason>` if another attempt would not help.
 *
 * The first process (`$$`, in the claim) waits for two others. `serve` reads the lines, and ends if no line comes for `limit` seconds.
 * `guard` sees its pipe close as soon as `serve` is gone, even by SIGKILL, and removes what it left.
 */
export const REMOTE_PROGRAM = `
set -f
umask 077
unset CDPATH
LC_ALL=C
export LC_ALL
trap "" PIPE
exec 3>&1
timer= claimed=

say() { printf '%s\\n' "$1" >&3; } 2>/dev/null
${ENDING}
${CLAIMS}
${DIRECTORY}
${PORTS}
${REGISTRATION}
say "opencode-connected 1"
dir= default= id= want= keep= password= limit=90 place= tunnel= probe= whole=
arm $$
while [ -z "$whole" ] && IFS= read -r line; do
  value=\${line#* }
  case $line in
    "") whole=yes ;;
    "tunnel "*) tunnel=$value ;;
    "probe "*) probe=$value ;;
    "directory "*) dir=$value ;;
    "default "*) default=$value ;;
    "id "*) id=$value ;;
    "name "*) want=$value ;;
    "keep "*) keep=$value ;;
    "password "*) password=$value ;;
    "limit "*) limit=$value ;;
    "place "*) place=$value ;;
  esac
done
if [ -z "$whole" ]; then disarm; exit 0; fi
check_tunnel
if [ -n "$probe" ]; then
  say registered
  disarm
  exit 0
fi
case $id in "" | *[!A-Za-z0-9_-]*) fail "expected an id of letters, digits, - and _, got $id" ;; esac
for name in "$want" "\${keep:-$want}"; do
  case $name in "" | .* | */*) fail "expected a name without path parts, got $name" ;; esac
done
case $limit in "" | *[!0-9]*) fail "expected a limit in seconds, got $limit" ;; esac

choose_directory "$dir" "$default"
[ "$dir" = "\${own-}" ] && say "directory $dir"
enter_directory
tmp=./.$id.$$.tmp
host=$(uname -n)
runs $$
claim="$id $$ $since $host\${place:+ $place}"
why=$(draft_claim 2>&1) || fail "cannot write in the registry directory $dir: $why"
take_any
claimed=yes
rm -f "$tmp"
disarm
trap - HUP INT TERM
serve | guard
`;

/**
 * The words for the relay's login shell, whichever that is: csh takes neither a line break nor `!` between single quotes, and
 * fish reads backslashes there. So whatever a shell may interpret is an octal escape, which printf turns back.
 */
export const REMOTE_COMMAND = `exec sh -c 'eval "$(printf "%b" "${escaped(REMOTE_PROGRAM)}")"'`;

function escaped(program: string): string {
  const withoutRemarks = program
    .replace(/^ *#.*\n/gm, '')
    .replace(/^ +/gm, '')
    .trim();
  return withoutRemarks.replace(
    /[^A-Za-z0-9 _.,:;/=+*?%@#|&<>()[\]{}~-]/g,
    (character) => `\\0${character.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
}

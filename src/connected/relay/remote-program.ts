/** Who holds a name; `start/guard.ts` has it too, and `survey/claim.ts` reads claims by the same rules. */
export const RUNS_AND_CLAIMS = `
# Whether process $1 runs; $since is its start time where the system tells, so that a later one with its number is not taken for it.
runs() {
  since=-
  case $1 in "" | *[!0-9]*) return 1 ;; esac
  kill -0 "$1" 2>/dev/null || return 1
  { IFS= read -r stat </proc/"$1"/stat; } 2>/dev/null || return 0
  set -- \${stat##*) }
  [ "$1" != Z ] || return 1
  [ $# -gt 19 ] || return 0
  shift 19
  since=$1
}

# The holder of the name $1.
read_claim() {
  held= held_id= held_pid= held_since= held_host= held_place=
  { IFS= read -r held <"./.$1.claim"; } 2>/dev/null
  set -- $held
  held_id=\${1-} held_pid=\${2-} held_since=\${3-} held_host=\${4-} held_place=\${5-}
}
`;

/** `survey/registry-place.ts` chooses by the same rule. */
const DIRECTORY = `
# Puts the directory $1 into $dir, whole. With $2, it is the one that everybody takes: where it is another user's (or anything else
# of theirs), the user's own is taken, and from then on for good, so that one user's registrations are in one place.
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
`;

const LISTENS = `
# Whether something may listen on the port $1: where the system does not tell, it may.
listens() {
  case $1 in "" | *[!0-9]*) return 0 ;; esac
  [ -r /proc/net/tcp ] || return 0
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep ": [0-9A-F]*:$(printf '%04X' "$1") [0-9A-F]*:0000 0A " >/dev/null
}
`;

const PAUSE = `
# A tenth of a second, or ten of them at once where sleep takes whole seconds only.
pause() {
  sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)) locked=$((locked + 9)); }
}
`;

/**
 * The program that runs on the relay at the other end of the SSH connection. It is POSIX sh: dash, busybox and
 * bash run it. Nothing of the person's is ever put into it; all that it works on comes as lines on its standard input:
 *
 *     tunnel <the port of the tunnel here, if there is one>
 *     probe <yes, where the tunnel is only to be tried: nothing is made, and it is answered by `registered`>
 *     directory <the registry directory; absolute, or beginning with ~/>
 *     default <yes, where nobody has chosen that>
 *     id <the instance's id>
 *     name <the wanted name>
 *     place <here: a registrar of the instance's own machine, which may be its relay too>
 *     keep <the name of the connection before, if there was one>
 *     password <the instance's password, if it has one>
 *     limit <seconds without a line after which the other side counts as gone>
 *     <an empty line: the end of the header>
 *     {…}   a registration, as often as it changes
 *     <an empty line: a heartbeat>
 *
 * It answers with lines: `opencode-connected 1` when it runs, `directory <path>` where another was taken, `claimed <name>`, `registered`, `beat`, `released` at its end, or
 * `error <reason>` before an early one; `refused <reason>` where trying again would not help, and `unseen` before the rest where
 * it cannot see at which addresses the tunnel listens.
 *
 * A name is held by `.<name>.claim`, one line `<id> <pid> <start time of the process> <host> <place>`, made with link(2), which fails where there is one.
 * Whoever holds it lives as long as that process does: a process that gets no line for `limit` ends itself.
 *
 * The processes: the first one (`$$`, in the claim) waits for two. `serve` reads the lines. `guard` reads a pipe that only `serve` and its
 * children hold, so that it goes on at once when they are gone, by SIGKILL too, and removes what they left.
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

fail() {
  say "error $(printf '%s' "$1" | tr '\\n' ' ')"
  disarm
  release
  exit 1
}

# Sends TERM to process $1 unless it is armed anew or disarmed within the limit. A signal that reaches a new subshell before
# it has dropped its parent's traps is lost, so that there are none for that moment; and a killed sleep cannot lose it.
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

# Puts the line $1 into the file $2, mode $3, whole or not at all; why not is in $why.
put() {
  [ ! -d "$2" ] || { why="$2 is a directory"; return 1; }
  why=$({ printf '%s\\n' "$1" | cat >"$tmp" && chmod "$3" "$tmp" && mv -f "$tmp" "$2"; } 2>&1) && return 0
  rm -f "$tmp" 2>/dev/null
  return 1
}

${RUNS_AND_CLAIMS}
holder_lives() {
  # Another machine's process cannot be asked; it touches its claim with every line.
  if [ "$held_host" != "$host" ]; then
    found=$(find "./.$name.claim" -mmin -2 2>/dev/null) || return 0
    [ -n "$found" ]
    return
  fi
  runs "$held_pid" && [ "$since" = "$held_since" ]
}

mine() {
  read_claim "$name"
  [ "$held" = "$claim" ]
}

# Whether the file $1 is the registration of the id $2. A quote inside of a JSON string has a backslash: this cannot be part of one.
is_of() {
  case $(cat "$1" 2>/dev/null) in *"\\"id\\":\\"$2\\""*) return 0 ;; esac
  return 1
}

${DIRECTORY}
${LISTENS}
# Whether another registrar of this instance works in the directory: a machine can be its own relay. That one needs the password too.
is_shared() {
  set +f
  set -- ./.*.claim
  set -f
  for file in "$@"; do
    file=\${file#./.}
    read_claim "\${file%.claim}"
    [ "$held_id" = "$id" ] && [ "$held_host" = "$host" ] || continue
    if runs "$held_pid" && [ "$since" = "$held_since" ]; then return 0; fi
  done
  return 1
}

# Removes what is still ours. The claim before the password: of two that end together, the last to look sees none.
release() {
  [ -n "$claimed" ] || { [ -z "\${tmp-}" ] || rm -f "$tmp"; return 0; }
  rm -f "$tmp" "$tmp.new"
  mine || [ ! -e "./.$name.claim" ] || return 0
  ! is_of "./$name.json" "$id" || rm -f "./$name.json"
  ! mine || rm -f "./.$name.claim"
  is_shared || rm -f "./.credentials/$id"
} 2>/dev/null

${PAUSE}
# Takes the name $1 unless a living instance has it.
take() {
  name=$1
  dead= tries=0 locked=0
  while ! why=$(ln "$tmp" "./.$name.claim" 2>&1); do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "cannot claim a name in the registry directory $dir: $why"
    [ -e "./.$name.claim" ] || continue
    read_claim "$name"
    if [ "$held_id" = "$id" ] && [ "$held_place" = "$place" ]; then
      # Our own former connection, half-open perhaps. It is given the time to tidy up.
      if [ "$tries" = 1 ] && [ "$held_host" = "$host" ] && holder_lives; then kill "$held_pid" 2>/dev/null; fi
      if [ "$tries" -lt 30 ]; then
        pause
        continue
      fi
    elif [ -n "$held" ] && holder_lives; then
      return 1
    fi
    # Dead. Removed by one at a time, or a second would remove what the first has put in its place. That takes
    # milliseconds: a lock that stays is of one who died over it.
    if ! ln "$tmp" "./.$name.lock" 2>/dev/null; then
      locked=$((locked + 1))
      [ "$locked" -lt 20 ] || rm -f "./.$name.lock"
      pause
      continue
    fi
    was=$held was_id=$held_id
    read_claim "$name"
    if [ "$held" = "$was" ] && { [ -n "$held" ] || [ ! -s "./.$name.claim" ]; }; then
      rm -f "./.$name.claim"
      dead=$was_id
    fi
    rm -f "./.$name.lock"
  done
  [ -e "./$name.json" ] || return 0
  ! is_of "./$name.json" "$id" || return 0
  if [ -n "$dead" ] && is_of "./$name.json" "$dead"; then return 0; fi
  # Written by something that makes no claims: gone when nothing listens on its port.
  set -- $(sed -n 's/.*"port": *\\([0-9][0-9]*\\).*/\\1/p' "./$name.json" 2>/dev/null)
  listens "\${1-}" || return 0
  rm -f "./.$name.claim"
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

# What a cleaner of temporary files took is put back.
keep_up() {
  if [ ! -e "./.$name.claim" ] && put "$claim" "$tmp.new" 600; then
    ln "$tmp.new" "./.$name.claim" 2>/dev/null
    rm -f "$tmp.new"
  fi
  mine || fail "the name $name was taken over in the registry directory $dir"
  touch "./.$name.claim" 2>/dev/null
  if [ -n "$password" ] && [ ! -e "./.credentials/$id" ]; then keep_password; fi
  if [ -n "$json" ] && [ ! -e "./$name.json" ]; then register; fi
}

# The addresses at which something listens on the port $1.
addresses() {
  if [ -r /proc/net/tcp ]; then
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
      sed -n "s/^ *[0-9]*: \\([0-9A-F]*\\):$(printf '%04X' "$1") [0-9A-F]*:0000 0A .*/\\1/p"
  else
    netstat -an 2>/dev/null | sed -n "s/^/ /;s/.* \\([^ ]*\\)[.:]$1 .*LISTEN.*/\\1/p"
  fi
}

# With GatewayPorts sshd opens the tunnel to every machine, whatever ssh asked for.
check_tunnel() {
  case $tunnel in "" | *[!0-9]*) return ;; esac
  set -- $(addresses "$tunnel")
  [ $# -gt 0 ] || say unseen
  for address in "$@"; do
    # Loopback as the kernels of both byte orders write it, and as netstat does.
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

guard() {
  exec 3>&-
  trap "" HUP INT TERM
  timer=-
  while read -r line; do timer=$line; done
  [ "$timer" = - ] || kill "$timer" 2>/dev/null
  release
}

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

wanted=$dir
choose_directory "$wanted" "$default"
[ "$dir" = "\${own-}" ] && say "directory $dir"
why=$(mkdir -p "$dir" 2>&1) || fail "cannot make the registry directory $dir: $why"
# From here on by relative names: whatever is put in its place, the directory that was checked is the one that is written to.
why=$(cd "$dir" 2>&1) && cd "$dir" || fail "cannot enter the registry directory $dir: $why"
set -- $(ls -ldn . 2>/dev/null)
[ "\${3-}" = "$(id -u)" ] ||
  fail "the registry directory $dir belongs to uid \${3-unknown}, not to uid $(id -u), who logs in; name another directory"
case $1 in
  ?????????[tT]*) advice="name a folder of its own, or, if it holds registrations only, run there" ;;
  *) advice="run there" ;;
esac
case $1 in
  ?????w* | ????????w*) fail "the registry directory $dir can be written by its group or by others ($1); $advice: chmod go-w $dir" ;;
esac

tmp=./.$id.$$.tmp
host=$(uname -n)
runs $$
claim="$id $$ $since $host\${place:+ $place}"
why=$({ printf '%s\\n' "$claim" | cat >"$tmp"; } 2>&1) || fail "cannot write in the registry directory $dir: $why"
if ! take "\${keep:-$want}" && { [ "\${keep:-$want}" = "$want" ] || ! take "$want"; }; then
  number=2
  until take "$want-$number"; do
    number=$((number + 1))
    [ "$number" -lt 100 ] || fail "the name $want and 98 after it are taken in the registry directory $dir; set INSTANCE_NAME to another"
  done
fi
claimed=yes
rm -f "$tmp"
disarm
trap - HUP INT TERM
serve | guard
`;

export const REMOTE_COMMAND = remoteCommand(REMOTE_PROGRAM);

/**
 * The words for the relay's login shell, whichever that is: csh takes neither a line break nor \`!\` between single
 * quotes, fish reads backslashes there. So what some shell may read is written as octal escapes, which printf turns back.
 */
function remoteCommand(program: string): string {
  return `exec sh -c 'eval "$(printf "%b" "${escaped(program)}")"'`;
}

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

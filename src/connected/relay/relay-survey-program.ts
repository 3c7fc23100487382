import { DIRECTORY, LISTENS, PAUSE, remoteCommand, RUNS_AND_CLAIMS } from './remote-program.ts';

/** Registrations that are told one by one; a directory with more is told as such. */
export const MAX_SURVEYED = 2_000;

/**
 * Tells what lies in a registry directory, and removes what is dead. It runs on the relay over SSH and, started by `sh`,
 * on this machine, so that both go by the same rules. As `remote-program.ts`, it is POSIX sh for dash, busybox and
 * bash, and nothing is ever put into it: it works on lines of its standard input.
 *
 *     default <yes, where nobody has chosen the directory>
 *     directory <the registry directory; absolute, or beginning with ~/>
 *     survey
 *     remove =<name> =<claim> =<content> <port> <vouched: yes or no>   the dead instance of that name
 *     forget =<id> <age: any or old>                                   a password file that nobody needs
 *
 * What stands behind `=` is escaped for `printf %b`. The answers to a survey, each on a line:
 *
 *     host <name> · uid <number> · directory <mode> <owner's uid> <yes where it is there and ours alone> <path> · missing <path>
 *     registration <mine or the owner's uid> <file name>, and its lines, each behind `> `
 *     odd <symlink, special, large, unreadable, line-break> <file name, but for the last>
 *     claim <mine or other> <alive, dead, elsewhere, unknown> <name>, and its line behind `> `
 *     password <mine or other> <old or new> <id>
 *     ports <known or unknown> · port <hexadecimal>
 *     done <number of registrations>
 *
 * `remove` and `forget` look again before they act and are answered by `removed` or `kept <reason>`. A content is compared as
 * a whole, so that nothing is removed that was written meanwhile; the name is locked as `remote-program.ts` does it, so that nobody takes it meanwhile.
 * Passwords are never read. Symbolic links are never followed below the directory itself.
 */
export const SURVEY_PROGRAM = `
set -f
umask 077
unset CDPATH
LC_ALL=C
export LC_ALL
# Cut off in the middle of a removal it would leave a lock. Every step is short, and the end of the input ends it.
trap "" HUP INT TERM PIPE
nl='
'
host=$(uname -n)
entered= default=

say() { printf '%s\\n' "$1"; } 2>/dev/null

one_line() { printf '%s' "$1" | tr '\\n' ' '; }

fail() {
  say "error $(one_line "$1")"
  exit 1
}

${DIRECTORY}
${RUNS_AND_CLAIMS}
${LISTENS}
${PAUSE}
# Whether everything in the directory is of our making.
is_ours_alone() {
  [ -O . ] || return 1
  case $1 in ?????w* | ????????w*) return 1 ;; esac
}

enter() {
  choose_directory "$1" "$default"
  if [ ! -e "$dir" ]; then return 0; fi
  [ -d "$dir" ] || fail "the registry directory $dir is no directory; remove it, or set another"
  if ! cd "$dir" 2>/dev/null || [ ! -r . ]; then
    set -- $(ls -ldn "$dir" 2>/dev/null)
    [ "\${3-}" != "$(id -u)" ] || fail "cannot read the registry directory $dir; run: chmod u+rx $dir"
    fail "cannot read the registry directory $dir: it, or a folder above it, is another user's\${3:+ (uid $3)}; run this as that user"
  fi
  entered=yes
}

# The lines of the file $1. A NUL is lost, as in every shell.
contents() {
  { while IFS= read -r text || [ -n "$text" ]; do printf '> %s\\n' "$text"; done <"$1"; } 2>/dev/null
}

owner_of() {
  if [ -O "$1" ]; then
    owner=mine
    return
  fi
  # A look at each of thousands would take minutes.
  foreign=$((foreign + 1)) owner=-
  [ "$foreign" -le 200 ] || return
  set -- $(ls -ldn "$1" 2>/dev/null)
  owner=\${3:--}
}

tell_registrations() {
  count=0 foreign=0 broken=
  for file do
    [ -e "$file" ] || [ -L "$file" ] || continue
    count=$((count + 1))
    [ "$count" -le ${MAX_SURVEYED} ] || continue
    name=\${file#./}
    case $name in *"$nl"*) say "odd line-break"; continue ;; esac
    if [ -L "$file" ]; then say "odd symlink $name"
    elif [ ! -f "$file" ]; then say "odd special $name"
    else
      case $large in *"$nl$file$nl"*) say "odd large $name"; continue ;; esac
      if [ ! -r "$file" ]; then say "odd unreadable $name"; continue; fi
      owner_of "$file"
      say "registration $owner $name"
      contents "$file"
    fi
  done
}

# Who holds the name $1, in $holder.
judge_claim() {
  holder=unknown
  [ -f "./.$1.claim" ] && [ ! -L "./.$1.claim" ] && [ -r "./.$1.claim" ] || return 0
  read_claim "$1"
  # kill(2) does not tell of another user's process.
  [ -O "./.$1.claim" ] && [ -n "$held_host" ] || return 0
  holder=elsewhere
  [ "$held_host" = "$host" ] || return 0
  holder=dead
  if runs "$held_pid" && [ "$since" = "$held_since" ]; then holder=alive; fi
}

tell_claims() {
  count=0
  for file do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    case $large in *"$nl$file$nl"*) continue ;; esac
    count=$((count + 1))
    [ "$count" -le ${MAX_SURVEYED} ] || return
    name=\${file#./.} name=\${name%.claim}
    case $name in *"$nl"*) continue ;; esac
    held=
    judge_claim "$name"
    owner=other
    [ ! -O "$file" ] || owner=mine
    say "claim $owner $holder $name"
    say "> $held"
  done
}

# An hour: an instance that starts writes its password a moment before its registration.
old_password() { [ -n "$(find "$1" -mmin +60 2>/dev/null)" ]; }

tell_passwords() {
  count=0
  for file do
    id=\${file#./.credentials/}
    case $id in *[!A-Za-z0-9_-]*) continue ;; esac
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    count=$((count + 1))
    [ "$count" -le ${MAX_SURVEYED} ] || return
    owner=other age=new
    [ ! -O "$file" ] || owner=mine
    case $old in *"$nl$file$nl"*) age=old ;; esac
    say "password $owner $age $id"
  done
}

survey() {
  say "host $host"
  say "uid $(id -u)"
  if [ -z "$entered" ]; then
    say "missing $(one_line "$dir")"
    say "done 0"
    return
  fi
  set -- $(ls -ldn . 2>/dev/null)
  alone=no
  is_ours_alone "\${1-}" && alone=yes
  say "directory \${1--} \${3--} $alone $(one_line "$(pwd -P)")"
  large="$nl$(find . ! -name . -prune -type f -size +32 2>/dev/null)$nl"
  set +f
  set -- ./*.json
  set -f
  tell_registrations "$@"
  registrations=$count
  set +f
  set -- ./.*.claim
  set -f
  tell_claims "$@"
  if [ -d ./.credentials ] && [ ! -L ./.credentials ]; then
    old="$nl$(find ./.credentials ! -name .credentials -prune -type f -mmin +60 2>/dev/null)$nl"
    set +f
    set -- ./.credentials/*
    set -f
    tell_passwords "$@"
  fi
  if [ -r /proc/net/tcp ]; then
    say "ports known"
    sed -n 's/^ *[0-9]*: [0-9A-F]*:\\([0-9A-F]\\{4\\}\\) [0-9A-F]*:0000 0A .*/port \\1/p' /proc/net/tcp /proc/net/tcp6 2>/dev/null | sort -u
  else
    say "ports unknown"
  fi
  say "done $registrations"
}

kept() { why=$1; return 1; }

may_remove() {
  [ -n "$entered" ] || kept "there is no registry directory" || return
  set -- $(ls -ldn . 2>/dev/null)
  is_ours_alone "\${1-}" || kept "others can write in the registry directory, or it is another user's"
}

# A lock that stays is of one who died over it: taking a name takes milliseconds.
lock() {
  tries=0 locked=0
  until ln "$mark" "./.$name.lock" 2>/dev/null; do
    [ -e "./.$name.lock" ] || kept "its name cannot be locked; is the registry directory read-only?" || return
    locked=$((locked + 1))
    [ "$locked" -lt 20 ] || rm -f "./.$name.lock"
    [ "$locked" -lt 60 ] || kept "its name stays locked" || return
    pause
  done
}

# Whether the claim is still the dead one that was surveyed. Where there was none, the name is taken for as long as this lasts.
claim_is_dead() {
  held=
  judge_claim "$name"
  if [ -z "$claim" ]; then
    ln "$mark" "./.$name.claim" 2>/dev/null || kept "it has been claimed since"
    return
  fi
  [ "$held" = "$claim" ] || kept "its claim has changed" || return
  [ "$holder" = dead ] || kept "its claim is held"
}

is_unchanged() {
  [ -f "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ "$(contents "$1")" = "$content" ]
}

is_silent() {
  if [ ! -r /proc/net/tcp ] && [ "$vouched" = yes ]; then return 0; fi
  ! listens "$port"
}

remove_registration() {
  file=./$name.json
  [ -e "$file" ] || [ -L "$file" ] || return 0
  is_unchanged "$file" || kept "it was written anew" || return
  is_silent || kept "something listens on its port again" || return
  mv "$file" "$mark.old" 2>/dev/null || kept "it cannot be removed; is the registry directory read-only?" || return
  if is_unchanged "$mark.old"; then
    rm -f "$mark.old"
    return
  fi
  # Written in this very moment by someone who takes no lock: put back, unless there is a newer one yet.
  ln "$mark.old" "$file" 2>/dev/null
  rm -f "$mark.old"
  kept "it was written anew"
}

remove() {
  name=$(printf '%b.' "\${1#=}") name=\${name%.}
  claim=$(printf '%b.' "\${2#=}") claim=\${claim%.}
  content=$(printf '%b.' "\${3#=}") content=\${content%.}
  port=$4 vouched=$5
  case $name in "" | .* | */* | *"$nl"*) kept "its name is no file name" || return ;; esac
  may_remove || return
  mark=./.cleanup.$$.tmp
  { printf 'cleanup %s %s %s\\n' "$$" "$started" "$host" >"$mark"; } 2>/dev/null ||
    kept "the registry directory cannot be written" || return
  status=1
  if lock; then
    if claim_is_dead; then
      remove_registration && status=0
      if [ "$status" = 0 ] || [ -z "$claim" ]; then rm -f "./.$name.claim" 2>/dev/null; fi
    fi
    rm -f "./.$name.lock"
  fi
  rm -f "$mark"
  return $status
}

is_claimed() {
  for file do
    claimed=\${file#./.} claimed=\${claimed%.claim}
    held_id=
    judge_claim "$claimed"
    if [ "$held_id" = "$id" ] && [ "$holder" != dead ]; then return 0; fi
  done
  return 1
}

forget() {
  id=\${1#=}
  case $id in "" | *[!A-Za-z0-9_-]*) kept "it is no id" || return ;; esac
  may_remove || return
  file=./.credentials/$id
  [ -d ./.credentials ] && [ ! -L ./.credentials ] || kept "there is no folder of passwords" || return
  [ -e "$file" ] || return 0
  [ -f "$file" ] && [ ! -L "$file" ] && [ -O "$file" ] || kept "it is not a file of this user" || return
  set +f
  set -- "$2" ./.*.claim
  set -f
  age=$1
  shift
  ! is_claimed "$@" || kept "an instance with its id is claimed" || return
  [ -z "$(find . ! -name . -prune -type f -name '*.json' -exec grep -l "\\"id\\" *: *\\"$id\\"" {} + 2>/dev/null)" ] ||
    kept "there is a registration with its id" || return
  [ "$age" = any ] || old_password "./.credentials/$id" || kept "it is younger than an hour" || return
  rm -f "./.credentials/$id" 2>/dev/null || kept "it cannot be removed"
}

runs $$
started=$since
say "opencode-connected registry 1"
while IFS= read -r line; do
  case $line in
    "default "*) default=\${line#default } ;;
    "directory "*) enter "\${line#directory }" ;;
    survey) survey ;;
    "remove "*) set -- \${line#remove }; if remove "$@"; then say removed; else say "kept $why"; fi ;;
    "forget "*) set -- \${line#forget }; if forget "$@"; then say removed; else say "kept $why"; fi ;;
  esac
done
exit 0
`;

/** For the login shell of the relay, or for \`sh -c\` here. */
export const SURVEY_COMMAND = remoteCommand(SURVEY_PROGRAM);

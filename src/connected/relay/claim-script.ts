/** The sh function that checks whether a process runs; `start/guard.ts` uses it too. */
export const RUNS = `
# Succeeds if process $1 runs, and sets $since to its start time, or to - if the system does not show it. Pids are reused.
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
`;

/**
 * The sh functions of `remote-program.ts` that take, hold and release a name. The file `.<name>.claim` holds a name: one line
 * `<id> <pid> <start time of the process> <host> <place>`, made with link(2), which fails if the file exists. A claim is valid
 * while its process runs. `survey/claim.ts` reads claims by the same rules.
 */
export const CLAIMS = `
${RUNS}
# Reads the claim of the name $1.
read_claim() {
  held=
  { IFS= read -r held <"./.$1.claim"; } 2>/dev/null
  set -- $held
  held_id=\${1-} held_pid=\${2-} held_since=\${3-} held_host=\${4-} held_place=\${5-}
}

# Whether the holder of the claim that was read last runs.
holder_lives() {
  # A process of another machine cannot be checked, but it touches its claim with every line that it reads.
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

# Whether the file $1 is the registration of the id $2. JSON escapes quotes inside strings, so a string cannot match this.
is_of() {
  case $(cat "$1" 2>/dev/null) in *"\\"id\\":\\"$2\\""*) return 0 ;; esac
  return 1
}

# Whether this instance has another registrar in the directory, which needs the password too: a machine can be its own relay.
is_shared() {
  set +f
  set -- ./.*.claim
  set -f
  for file in "$@"; do
    file=\${file#./.}
    read_claim "\${file%.claim}"
    if [ "$held_id" = "$id" ] && [ "$held_host" = "$host" ] && holder_lives; then return 0; fi
  done
  return 1
}

# Removes what is still ours. The claim goes before the password: of two registrars that end together, the last one finds no claim.
release() {
  [ -n "$claimed" ] || { [ -z "\${tmp-}" ] || rm -f "$tmp"; return 0; }
  rm -f "$tmp"
  mine || [ ! -e "./.$name.claim" ] || return 0
  ! is_of "./$name.json" "$id" || rm -f "./$name.json"
  ! mine || rm -f "./.$name.claim"
  is_shared || rm -f "./.credentials/$id"
} 2>/dev/null

# A tenth of a second, or ten at once if sleep takes whole seconds only.
pause() {
  sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)) locked=$((locked + 9)); }
}

# Writes our claim to $tmp.
draft_claim() { printf '%s\\n' "$claim" | cat >"$tmp"; }

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
      # Our own previous connection, perhaps half-open. It gets three seconds to tidy up.
      if [ "$tries" = 1 ] && [ "$held_host" = "$host" ] && holder_lives; then kill "$held_pid" 2>/dev/null; fi
      if [ "$tries" -lt 30 ]; then
        pause
        continue
      fi
    elif [ -n "$held" ] && holder_lives; then
      return 1
    fi
    # The holder is dead. One process at a time removes its claim, or a second would remove the claim that the first has made.
    # That takes milliseconds, so a lock that stays belongs to a process that died holding it.
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
  # A registration by a program that makes no claims is dead if nothing listens on its port.
  set -- $(sed -n 's/.*"port": *\\([0-9][0-9]*\\).*/\\1/p' "./$name.json" 2>/dev/null)
  may_listen "\${1-}" || return 0
  rm -f "./.$name.claim"
  return 1
}

# Takes the name $want, the one that the previous connection had, or the first free one of $want-2, $want-3, …
take_any() {
  ! take "\${keep:-$want}" || return 0
  if [ "\${keep:-$want}" != "$want" ] && take "$want"; then return 0; fi
  number=2
  until take "$want-$number"; do
    number=$((number + 1))
    [ "$number" -lt 100 ] || fail "the name $want and 98 after it are taken in the registry directory $dir; set INSTANCE_NAME to another"
  done
}
`;

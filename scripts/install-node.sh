#!/bin/sh
set -eu

help() {
  cat <<'END'
Installs `opencode-mcp node` as a service, or upgrades it: running this again is safe.
  install-node.sh                 for you: a systemd user unit, or a launch agent on macOS
  install-node.sh --system USER   as root: the system unit opencode-mcp-node@USER
DESTDIR=<folder> only writes the files, below that folder. uninstall-node.sh takes it away again.
END
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
dest=${DESTDIR:-}

fail() {
  echo "install-node.sh: $1" >&2
  exit 1
}

# What is written before the service runs is taken back when a step fails: an older file comes back, a new one goes.
file=
settings=
unit=
undo() {
  status=$?
  trap - EXIT
  if [ "$status" != 0 ] && [ -n "$file" ]; then
    rm -f -- "$file.new" ${settings:+"$settings"}
    if [ -e "$file.before" ]; then
      mv -f -- "$file.before" "$file"
      [ -z "$unit" ] || { $control daemon-reload && $control restart "$unit"; } >/dev/null 2>&1 || true
      echo "install-node.sh: failed; the older $file is back" >&2
    else
      [ -z "$unit" ] || $control disable "$unit" >/dev/null 2>&1 || true
      rm -f -- "$file"
      [ -z "$unit" ] || $control daemon-reload >/dev/null 2>&1 || true
      echo "install-node.sh: failed; nothing is left of it" >&2
    fi
  fi
  exit "$status"
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What stands in for a path in a unit: quoted for systemd, then for sed.
for_unit() {
  printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/%/%%/g' -e 's/\$/$$/g' -e 's/.*/"&"/' | for_sed
}
for_xml() {
  printf '%s' "$1" | sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' | for_sed
}
for_sed() {
  sed -e 's/[\\&|]/\\&/g'
}

# Writes standard input to $1 with mode $2, whole or not at all.
put() {
  mkdir -p -- "$(dirname -- "$1")"
  cat >"$1.new"
  [ -s "$1.new" ] || fail "cannot make $1"
  chmod "$2" "$1.new"
  mv -f -- "$1.new" "$1"
}

# From here on `undo` takes $1 back.
begin() {
  file=$1
  rm -f -- "$file.before"
  [ ! -e "$file" ] || cp -p -- "$file" "$file.before"
}

# The service runs.
keep() {
  rm -f -- "$file.before"
  file=
}

# A person's settings are never overwritten.
put_settings() {
  [ ! -e "$1" ] || return 0
  settings=$1
  put "$1" 600 <"$root/systemd/node.env.example"
}

unit_text() {
  sed -e "s|^ExecStart=.*|ExecStart=$(for_unit "$node") $(for_unit "$program") node|" "$root/systemd/$1"
}

# With `systemctl` or `systemctl --user` as $1.
start_unit() {
  control=$1
  unit=$2
  $control daemon-reload
  $control enable "$unit"
  $control restart "$unit"
}

# Before anything is written. There is none over su or sudo, in most containers, and where systemd does not run at all.
need_user_manager() {
  reason=$(systemctl --user show-environment 2>&1 >/dev/null) && return 0
  why="install-node.sh: there is no systemd of $(id -un) to ask (${reason:-systemctl failed}), so nothing was installed."
  if [ -d /run/systemd/system ]; then
    echo "$why Log in as $(id -un) by ssh or at the machine, not by su or sudo, and run this again; or install a system unit:
  sudo sh '$here/install-node.sh' --system $(id -un)" >&2
  else
    echo "$why systemd does not run this machine, a container perhaps: start it there by what does, as
  $node $program node" >&2
  fi
  exit 1
}

install_user_unit() {
  config=${XDG_CONFIG_HOME:-$HOME/.config}
  [ -n "$dest" ] || need_user_manager
  begin "$dest$config/systemd/user/opencode-mcp-node.service"
  unit_text opencode-mcp-node.service | put "$file" 644
  put_settings "$dest$config/opencode-mcp/node.env"
  if [ -n "$dest" ]; then
    keep
    return 0
  fi
  start_unit 'systemctl --user' opencode-mcp-node.service
  keep
  # Without lingering it would end with the last session.
  loginctl enable-linger "$(id -un)" 2>/dev/null ||
    echo "Run: sudo loginctl enable-linger $(id -un)   (else the service ends when you log out)" >&2
  echo "Running. See: systemctl --user status opencode-mcp-node; journalctl --user -u opencode-mcp-node"
}

install_system_unit() {
  user=$1
  case $user in
    '' | *[!A-Za-z0-9._-]* | -*) fail "expected a user name after --system, got \"$user\"" ;;
  esac
  id -u -- "$user" >/dev/null 2>&1 || fail "there is no user $user"
  [ -n "$dest" ] || [ "$(id -u)" = 0 ] || fail "--system needs root; without it the service is installed for you"
  if [ -z "$dest" ]; then
    reason=$(systemctl show-environment 2>&1 >/dev/null) ||
      fail "systemd does not run this machine (${reason:-systemctl failed}), so nothing was installed; start it by what does, as $user: $node $program node"
  fi
  begin "$dest/etc/systemd/system/opencode-mcp-node@.service"
  unit_text opencode-mcp-node@.service | put "$file" 644
  put_settings "$dest/etc/opencode-mcp/node.env"
  if [ -n "$dest" ]; then
    keep
    return 0
  fi
  start_unit systemctl "opencode-mcp-node@$user.service"
  keep
  echo "Running. See: systemctl status opencode-mcp-node@$user; journalctl -u opencode-mcp-node@$user"
}

install_launch_agent() {
  plist=$HOME/Library/LaunchAgents/opencode-mcp.node.plist
  begin "$dest$plist"
  sed -e "s|@NODE@|$(for_xml "$node")|" -e "s|@PROGRAM@|$(for_xml "$program")|" \
    -e "s|@LOG@|$(for_xml "$HOME/Library/Logs/opencode-mcp-node.log")|" "$root/scripts/opencode-mcp.node.plist" |
    put "$dest$plist" 644
  if [ -n "$dest" ]; then
    keep
    return 0
  fi
  launchctl bootout "gui/$(id -u)/opencode-mcp.node" 2>/dev/null || true
  launchctl bootstrap "gui/$(id -u)" "$plist"
  keep
  echo "Running. See: launchctl print gui/$(id -u)/opencode-mcp.node; ~/Library/Logs/opencode-mcp-node.log"
}

case ${1:-} in
  -h | --help)
    help
    exit 0
    ;;
  '' | --system) ;;
  *) fail "expected nothing or --system USER, got $1; see --help" ;;
esac

node=$(command -v node) || fail "node is not on the PATH; install Node 20.19 or newer"
program=$root/dist/opencode-mcp.js
[ -f "$program" ] || fail "there is no $program; run npm ci in $root, which builds it"

case ${1:-} in
  --system) install_system_unit "${2:-}" ;;
  '')
    case ${OPENCODE_MCP_OS:-$(uname -s)} in
      Linux) install_user_unit ;;
      Darwin) install_launch_agent ;;
      *) fail "only Linux with systemd and macOS have a service here; run opencode-mcp node yourself" ;;
    esac
    ;;
esac

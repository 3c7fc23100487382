#!/bin/sh
# Installs `opencode-mcp node` as a service, or upgrades it: running this again is safe.
#   install-node.sh                 for you: a systemd user unit, or a launch agent on macOS
#   install-node.sh --system USER   as root: the system unit opencode-mcp-node@USER
# DESTDIR=<folder> only writes the files, below that folder.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
dest=${DESTDIR:-}

fail() {
  echo "install-node.sh: $1" >&2
  exit 1
}

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
  chmod "$2" "$1.new"
  mv -f -- "$1.new" "$1"
}

# A person's settings are never overwritten.
put_settings() {
  [ -e "$1" ] || put "$1" 600 <"$root/systemd/node.env.example"
}

unit() {
  sed -e "s|^ExecStart=.*|ExecStart=$(for_unit "$node") $(for_unit "$program") node|" "$root/systemd/$1"
}

install_user_unit() {
  config=${XDG_CONFIG_HOME:-$HOME/.config}
  unit opencode-mcp-node.service | put "$dest$config/systemd/user/opencode-mcp-node.service" 644
  put_settings "$dest$config/opencode-mcp/node.env"
  [ -z "$dest" ] || return 0
  systemctl --user daemon-reload
  systemctl --user enable opencode-mcp-node.service
  systemctl --user restart opencode-mcp-node.service
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
  unit opencode-mcp-node@.service | put "$dest/etc/systemd/system/opencode-mcp-node@.service" 644
  put_settings "$dest/etc/opencode-mcp/node.env"
  [ -z "$dest" ] || return 0
  systemctl daemon-reload
  systemctl enable "opencode-mcp-node@$user.service"
  systemctl restart "opencode-mcp-node@$user.service"
  echo "Running. See: systemctl status opencode-mcp-node@$user; journalctl -u opencode-mcp-node@$user"
}

install_launch_agent() {
  plist=$HOME/Library/LaunchAgents/opencode-mcp.node.plist
  sed -e "s|@NODE@|$(for_xml "$node")|" -e "s|@PROGRAM@|$(for_xml "$program")|" \
    -e "s|@LOG@|$(for_xml "$HOME/Library/Logs/opencode-mcp-node.log")|" "$root/scripts/opencode-mcp.node.plist" |
    put "$dest$plist" 644
  [ -z "$dest" ] || return 0
  launchctl bootout "gui/$(id -u)/opencode-mcp.node" 2>/dev/null || true
  launchctl bootstrap "gui/$(id -u)" "$plist"
  echo "Running. See: launchctl print gui/$(id -u)/opencode-mcp.node; ~/Library/Logs/opencode-mcp-node.log"
}

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
  *) fail "expected nothing or --system USER, got $1" ;;
esac

#!/bin/sh
# Ends the node service and removes what install-node.sh made, but not the settings. Running this again is safe.
#   uninstall-node.sh                 the one for you
#   uninstall-node.sh --system USER   as root: opencode-mcp-node@USER; the template goes with the last user
# DESTDIR=<folder> only removes the files, below that folder.
set -eu

dest=${DESTDIR:-}

fail() {
  echo "uninstall-node.sh: $1" >&2
  exit 1
}

uninstall_user_unit() {
  config=${XDG_CONFIG_HOME:-$HOME/.config}
  [ -n "$dest" ] || systemctl --user disable --now opencode-mcp-node.service 2>/dev/null || true
  unit=$dest$config/systemd/user/opencode-mcp-node.service
  if ! [ -e "$unit" ] && ! [ -L "$unit" ]; then
    echo "The node service is not installed for you: there is no $unit. Nothing was removed."
    return 0
  fi
  rm -f -- "$unit"
  [ -n "$dest" ] || systemctl --user daemon-reload
  echo "Removed. Kept: $config/opencode-mcp/node.env; lingering, which other services may need (loginctl disable-linger)."
}

uninstall_system_unit() {
  user=$1
  case $user in
    '' | *[!A-Za-z0-9._-]* | -*) fail "expected a user name after --system, got \"$user\"" ;;
  esac
  [ -n "$dest" ] || [ "$(id -u)" = 0 ] || fail "--system needs root"
  [ -n "$dest" ] || systemctl disable --now "opencode-mcp-node@$user.service" 2>/dev/null || true
  for other in "$dest"/etc/systemd/system/*.wants/opencode-mcp-node@*.service; do
    if [ -e "$other" ] || [ -L "$other" ]; then
      echo "Kept the template: $(basename -- "$other") still uses it."
      return 0
    fi
  done
  rm -f -- "$dest/etc/systemd/system/opencode-mcp-node@.service"
  [ -n "$dest" ] || systemctl daemon-reload
  echo "Removed. Kept: /etc/opencode-mcp"
}

uninstall_launch_agent() {
  [ -n "$dest" ] || launchctl bootout "gui/$(id -u)/opencode-mcp.node" 2>/dev/null || true
  rm -f -- "$dest$HOME/Library/LaunchAgents/opencode-mcp.node.plist"
  echo "Removed. Kept: ~/Library/Logs/opencode-mcp-node.log"
}

case ${1:-} in
  --system) uninstall_system_unit "${2:-}" ;;
  '')
    case ${OPENCODE_MCP_OS:-$(uname -s)} in
      Linux) uninstall_user_unit ;;
      Darwin) uninstall_launch_agent ;;
      *) fail "only Linux with systemd and macOS have a service here" ;;
    esac
    ;;
  *) fail "expected nothing or --system USER, got $1" ;;
esac

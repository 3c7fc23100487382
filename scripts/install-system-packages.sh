#!/bin/sh
# Installs the system programs that the suites drive: sshd, busybox as another relay's shell, tmux for the TUI, zsh and fish for
# completion, systemd for the units, iproute2 for network namespaces, ripgrep, which opencode would download otherwise, and Chromium
# for the page. Only in CI (CI=true) and as root; elsewhere suites with missing programs are skipped.
set -eu

missing=
[ -x /usr/sbin/sshd ] || command -v sshd >/dev/null 2>&1 || missing="$missing openssh-server"
command -v ssh >/dev/null 2>&1 || missing="$missing openssh-client"
command -v busybox >/dev/null 2>&1 || missing="$missing busybox"
command -v tmux >/dev/null 2>&1 || missing="$missing tmux"
command -v zsh >/dev/null 2>&1 || missing="$missing zsh"
command -v fish >/dev/null 2>&1 || missing="$missing fish"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
command -v rg >/dev/null 2>&1 || missing="$missing ripgrep"
command -v ip >/dev/null 2>&1 || [ -x /usr/sbin/ip ] || missing="$missing iproute2"
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$missing" ] || exit 0

if [ "${CI:-}" != true ] || [ "$(id -u)" != 0 ]; then
  echo "Not installed:$missing. Their suites are skipped; install them, or run this as root with CI=true." >&2
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
# Keeps the package from starting a service on port 22; the suites start their own on loopback.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086 -- a list of names
apt-get install --quiet --yes --no-install-recommends $missing

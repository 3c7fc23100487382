import { VERSION } from '../base/version.ts';
import { settingsHelp } from '../config/help.ts';

export function connectedHelp(): string {
  return `opencode-connected ${VERSION} starts opencode so that opencode-mcp can reach it: the same terminal, an HTTP server on
127.0.0.1 behind a password of its own, and a registration on this machine and, if one is set, on a relay.
Of OpenCode 2 it makes sure that your service runs, opens the terminal on it, and registers the service.

Usage:
  opencode-connected [options] [directory] [options of opencode]
      --headless      opencode serve instead of the terminal; with OpenCode 2 only the registration
      --no-password   no password: whoever reaches the port can run commands as you. OpenCode 1 only
      --lan           listen on the LAN too, and say so there; status tells how others get the password
  opencode-connected status [--json]       what is registered here and on the relay, and what answers
  opencode-connected sessions [--json]     recent sessions of every instance registered here
  opencode-connected cleanup [--dry-run]   removes what is provably dead
  opencode-connected survey --json         what lies in the registry directory; other machines run it on their relay
  opencode-connected --version
  opencode-connected --help

Everything else is opencode's, and runs as without us: run, auth, serve, …; alias opencode=opencode-connected
works. After -- everything is opencode's too: opencode-connected -- --help

${settingsHelp('opencode-connected')}`;
}

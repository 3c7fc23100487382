import { VERSION } from '../base/version.ts';
import { settingsHelp } from '../config/help.ts';

export function connectedHelp(): string {
  return `opencode-connected ${VERSION} starts opencode so that opencode-mcp can reach it: the usual terminal, an HTTP server on
127.0.0.1 with a new password, and a registration on this machine and on the relay, if one is set.
With OpenCode 2 it makes sure that your service runs, opens the terminal on it, and registers the service.

Usage:
  opencode-connected [options] [directory] [options of opencode]
      --headless      run opencode serve, without a terminal; with OpenCode 2 only register the service
      --no-password   no password: anyone who reaches the port can run commands as you. OpenCode 1 only
      --lan           listen on the LAN too, and advertise it; status shows how others get the password
  opencode-connected status [--json]       what is registered here and on the relay, and what answers
  opencode-connected sessions [--json]     recent sessions of every instance registered here
  opencode-connected cleanup [--dry-run]   removes what is provably dead
  opencode-connected survey --json         the contents of the registry directory; other machines run it on their relay
  opencode-connected --version
  opencode-connected --help

Every other command line goes to opencode unchanged: run, auth, serve, …; alias opencode=opencode-connected works.
So does everything after --: opencode-connected -- --help

${settingsHelp('opencode-connected')}`;
}

import { CLIENTS } from './clients.ts';

export function initHelp(): string {
  const names = CLIENTS.map(({ name }) => name).join(', ');
  return `opencode-mcp init adds opencode-mcp to the MCP clients on this machine, in their own configuration files.
It shows each change, asks, keeps a copy of the file beside it, and writes. A second run changes nothing.

Usage:
  opencode-mcp init [options]
      --yes             write without asking
      --client LIST     only these, even if they were not found
      --relay YOU@HOST  have the clients run the server there by ssh; tries that first
      --remove          remove it again
      --print [LIST]    print what to add by hand for these clients, by default for those not found
      --json            print the changes as JSON; nothing is written without --yes

Clients: ${names}

Examples:
  opencode-mcp init
  opencode-mcp init --client cursor,zed --yes
  opencode-mcp init --relay you@relay
  opencode-mcp init --print claude-desktop
  opencode-mcp init --remove

Most other clients accept what is printed for claude-desktop. Put settings, and above all passwords, into opencode-mcp's
own configuration file, never into a client's. Arguments that you add to the command in a client stay.
`;
}

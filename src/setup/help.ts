import { CLIENTS } from './clients.ts';

export function initHelp(): string {
  const names = CLIENTS.map(({ name }) => name).join(', ');
  return `opencode-mcp init tells the MCP clients on this machine about opencode-mcp, in their own configuration files.
It shows each change, asks, keeps a copy of the file beside it, and writes. A second run changes nothing.

Usage:
  opencode-mcp init [options]
      --yes             write without asking
      --client LIST     only these, also where they were not found
      --relay YOU@HOST  the clients reach the server there by ssh; tries that first
      --remove          take it out again
      --print [LIST]    print what to add by hand for clients that were not found, or for these
      --json            print what was done, or with no --yes what would be, as JSON

Clients: ${names}

Examples:
  opencode-mcp init
  opencode-mcp init --client cursor,zed --yes
  opencode-mcp init --relay you@relay
  opencode-mcp init --print claude-desktop
  opencode-mcp init --remove

Another client mostly takes what is printed for claude-desktop. Settings, and passwords above all, go into opencode-mcp's
own configuration file, never into a client's; arguments that you add to the command in a client stay.
`;
}

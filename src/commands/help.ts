import { settingsHelp } from '../config/help.ts';

export function helpText(): string {
  return `opencode-mcp finds every OpenCode instance you run and drives them.

Usage:
  opencode-mcp [options]        the MCP server, on standard input and output
  opencode-mcp init             tell the MCP clients on this machine about it; init --help
  opencode-mcp list [options]   print the instances and end
  opencode-mcp node [options]   serve this user's instances to the own tailnet, until told to end
  opencode-mcp --version
  opencode-mcp --help

${settingsHelp('opencode-mcp')}`;
}

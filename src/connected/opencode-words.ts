/**
 * The words of opencode 1.18 and OpenCode 2 command lines that decide what `opencode-connected` does. A test compares them with
 * the programs' own help.
 */

/** Commands that do not open the terminal on a project. */
export const COMMANDS: ReadonlySet<string> = new Set([
  'acp',
  'agent',
  'api',
  'attach',
  'auth',
  'completion',
  'console',
  'db',
  'debug',
  'export',
  'generate',
  'github',
  'import',
  'mcp',
  'migrate',
  'mini',
  'models',
  'plug',
  'plugin',
  'pr',
  'providers',
  'run',
  'serve',
  'service',
  'session',
  'stats',
  'uninstall',
  'upgrade',
  'web',
]);

/** Options with which opencode prints something, opens its terminal on another server, or opens a terminal without a server (`--mini`). */
export const PLAIN_OPTIONS: ReadonlySet<string> = new Set([
  '--completions',
  '--get-yargs-completions',
  '--help',
  '--mini',
  '--server',
  '--version',
  '-h',
  '-v',
]);

/** Options whose value is the next word. */
export const VALUE_OPTIONS: ReadonlySet<string> = new Set([
  '--agent',
  '--cors',
  '--hostname',
  '--log-level',
  '--mdns-domain',
  '--model',
  '--port',
  '--prompt',
  '--replay-limit',
  '--session',
  '-m',
  '-s',
]);

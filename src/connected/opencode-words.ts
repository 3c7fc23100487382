/**
 * What the command lines of opencode 1.18 and OpenCode 2 hold, so far as it decides what `opencode-connected` does with them. A test
 * compares this with what the programs themselves say.
 */

/** These do something else than open the terminal on a project. */
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

/**
 * With these, opencode prints something, opens its terminal on another server, or one (`--mini`) that cannot have a server beside it.
 */
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

/** The next word is their value. */
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

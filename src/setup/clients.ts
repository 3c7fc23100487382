import { join } from 'node:path';

/** The machine on which the clients are. */
export interface Place {
  /** Absolute. */
  readonly home: string;
  readonly platform: NodeJS.Platform;
  /** Some clients have variables for the place of their files. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A command: program, then arguments. */
export type Words = readonly [string, ...string[]];

/** A command that starts the server, for the clients. */
export interface ServerCommand {
  readonly words: Words;
  /** Why it may stop working, one sentence each. */
  readonly warnings: readonly string[];
}

/** `json`: the client takes neither comments nor trailing commas. */
export type Format = 'json' | 'jsonc' | 'toml';

/** An MCP client, and how a server is added to it. */
export interface Client {
  readonly name: string;
  readonly title: string;
  /** Its configuration files, absolute. The first that exists is edited; if none exists, the last is created. */
  readonly files: (place: Place) => readonly [string, ...string[]];
  /** Exists once the client has run here; default: the folder of its files. */
  readonly folder?: (place: Place) => string;
  /** Names of its programs on PATH. */
  readonly programs: readonly string[];
  readonly format: Format;
  /** Paths of the object that holds the servers: the first that exists, otherwise the last. */
  readonly sections: readonly [readonly string[], ...(readonly string[])[]];
  readonly entry: (command: Words) => Readonly<Record<string, unknown>>;
  /** The client writes its file while it runs, and then holds the lock `<file>.lock`. */
  readonly locks?: true;
  /** What the person does next. */
  readonly next: string;
}

const plain = ([command, ...args]: Words): Readonly<Record<string, unknown>> => ({ command, args });
const typed = (words: Words): Readonly<Record<string, unknown>> => ({ type: 'stdio', ...plain(words) });

export const CLIENTS: readonly Client[] = [
  {
    name: 'claude-code',
    title: 'Claude Code',
    files: ({ home, env }) => [join(env['CLAUDE_CONFIG_DIR'] || home, '.claude.json')],
    folder: ({ home, env }) => env['CLAUDE_CONFIG_DIR'] || join(home, '.claude'),
    programs: ['claude'],
    format: 'json',
    sections: [['mcpServers']],
    entry: typed,
    locks: true,
    next: 'start Claude Code again; /mcp lists it',
  },
  {
    name: 'claude-desktop',
    title: 'Claude Desktop',
    files: (place) => [join(applicationFolder(place), 'Claude', 'claude_desktop_config.json')],
    programs: ['claude-desktop'],
    format: 'json',
    sections: [['mcpServers']],
    entry: plain,
    next: 'quit Claude Desktop, not only its window, and start it again',
  },
  {
    name: 'codex',
    title: 'Codex',
    files: ({ home, env }) => [join(env['CODEX_HOME'] || join(home, '.codex'), 'config.toml')],
    programs: ['codex'],
    format: 'toml',
    sections: [['mcp_servers']],
    entry: plain,
    next: 'start Codex again; codex mcp list shows it',
  },
  {
    name: 'opencode',
    title: 'opencode',
    // OpenCode 1 and 2 read the same files; opencode.json wins over opencode.jsonc.
    files: ({ home, env }) => {
      const folder = join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'opencode');
      return [join(folder, 'opencode.jsonc'), join(folder, 'opencode.json')];
    },
    programs: ['opencode', 'opencode2'],
    format: 'jsonc',
    // The first is read by OpenCode 2 only, the second by both.
    sections: [['mcp', 'servers'], ['mcp']],
    entry: (command) => ({ type: 'local', command }),
    next: 'start opencode again; opencode mcp list shows it',
  },
  {
    name: 'vscode',
    title: 'VS Code',
    files: (place) => [join(applicationFolder(place), 'Code', 'User', 'mcp.json')],
    programs: ['code'],
    format: 'jsonc',
    sections: [['servers']],
    entry: typed,
    next: 'in VS Code run MCP: List Servers, and start it there',
  },
  {
    name: 'cursor',
    title: 'Cursor',
    files: ({ home }) => [join(home, '.cursor', 'mcp.json')],
    programs: ['cursor', 'cursor-agent'],
    format: 'jsonc',
    sections: [['mcpServers']],
    entry: plain,
    next: 'in Cursor see Settings, MCP',
  },
  {
    name: 'gemini',
    title: 'Gemini CLI',
    files: ({ home, env }) => [join(env['GEMINI_CLI_HOME'] || home, '.gemini', 'settings.json')],
    programs: ['gemini'],
    format: 'jsonc',
    sections: [['mcpServers']],
    entry: plain,
    next: 'start Gemini CLI again in a folder that it trusts; /mcp lists it',
  },
  {
    name: 'zed',
    title: 'Zed',
    files: ({ home, env, platform }) => {
      if (platform === 'win32') return [join(roaming({ home, env }), 'Zed', 'settings.json')];
      const configs = platform === 'linux' ? env['XDG_CONFIG_HOME'] : undefined;
      return [join(configs || join(home, '.config'), 'zed', 'settings.json')];
    },
    programs: ['zed', 'zeditor'],
    format: 'jsonc',
    sections: [['context_servers']],
    entry: (words) => ({ source: 'custom', ...plain(words) }),
    next: 'in Zed see the settings of the agent panel',
  },
];

/** The folder for settings of desktop applications. */
function applicationFolder({ home, env, platform }: Place): string {
  if (platform === 'win32') return roaming({ home, env });
  if (platform === 'darwin') return join(home, 'Library', 'Application Support');
  return env['XDG_CONFIG_HOME'] || join(home, '.config');
}

function roaming({ home, env }: Pick<Place, 'home' | 'env'>): string {
  return env['APPDATA'] || join(home, 'AppData', 'Roaming');
}

import { join } from 'node:path';

/** The machine as the clients see it. */
export interface Place {
  /** Absolute. */
  readonly home: string;
  readonly platform: NodeJS.Platform;
  /** Clients have variables of their own for where their files are. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A command in words: program, then arguments. */
export type Words = readonly [string, ...string[]];

/** `json`: the client takes neither comments nor trailing commas. */
export type Format = 'json' | 'jsonc' | 'toml';

/** An MCP client, and how a server is added to it. */
export interface Client {
  /** For the command line. */
  readonly name: string;
  readonly title: string;
  /** Its configuration files, absolute. The first that exists is edited; the last is made where there is none. */
  readonly files: (place: Place) => readonly [string, ...string[]];
  /** Exists once the client has run here. The folder of its files unless set. */
  readonly folder?: (place: Place) => string;
  /** Names on PATH. */
  readonly programs: readonly string[];
  readonly format: Format;
  /** Where in the file the servers are, by name: the first that is there, else the last. */
  readonly sections: readonly [readonly string[], ...(readonly string[])[]];
  readonly entry: (command: Words) => Readonly<Record<string, unknown>>;
  /** It writes its file while it runs, and holds `<file>.lock` meanwhile. */
  readonly locks?: true;
  /** What a person does next. */
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
    // Generation 1 and 2 read the same files; where there are several, the later one of this order wins in opencode.
    files: ({ home, env }) => {
      const folder = join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'opencode');
      return [join(folder, 'opencode.jsonc'), join(folder, 'opencode.json')];
    },
    programs: ['opencode', 'opencode2'],
    format: 'jsonc',
    // The first is generation 2's own, the other of both.
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

/** Where desktop applications keep their settings. */
function applicationFolder({ home, env, platform }: Place): string {
  if (platform === 'win32') return roaming({ home, env });
  if (platform === 'darwin') return join(home, 'Library', 'Application Support');
  return env['XDG_CONFIG_HOME'] || join(home, '.config');
}

function roaming({ home, env }: Pick<Place, 'home' | 'env'>): string {
  return env['APPDATA'] || join(home, 'AppData', 'Roaming');
}

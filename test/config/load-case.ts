import { checkConfig } from '../../src/config/file/check-config.ts';
import { readWritten, settingsOf, type LoadedSettings, type LoadInput } from '../../src/config/load.ts';
import { SettingsError } from '../../src/config/settings.ts';

export const HOME = '/home/ada';
export const CONFIG_PATH = '/home/ada/.config/opencode-mcp/config.json';

export interface Case extends Partial<Omit<LoadInput, 'readFile' | 'argv'>> {
  readonly argv?: readonly string[];
  /** Content of the default config file; a string is its text. Default: no file. */
  readonly config?: unknown;
  readonly mode?: number;
  /** Other files, by absolute path. */
  readonly files?: Readonly<Record<string, string>>;
}

/** Loads from an in-memory file system with `config` at the default path. */
export function load(testCase: Case = {}): LoadedSettings {
  const { config, mode = 0o600, files = {}, ...input } = testCase;
  const text = typeof config === 'string' || config === undefined ? config : JSON.stringify(config);
  const contents = new Map([...(text === undefined ? [] : [[CONFIG_PATH, text] as const]), ...Object.entries(files)]);
  const loadInput: LoadInput = {
    argv: [],
    env: {},
    home: HOME,
    cwd: '/work-dir',
    readFile(path) {
      const content = contents.get(path);
      if (content === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
      return { text: content, mode };
    },
    ...input,
  };
  return loadFrom(loadInput);
}

/** Like `loadSettings`, with the checker already loaded. */
export function loadFrom(input: LoadInput): LoadedSettings {
  const written = readWritten(input);
  return settingsOf(written, written.configText && checkConfig(written.configText, { ...input, ...written }));
}

/** The lines of the `SettingsError`, or an empty list. */
export function problemsOf(testCase: Case): string[] {
  try {
    load(testCase);
    return [];
  } catch (error) {
    if (error instanceof SettingsError) return error.message.split('\n');
    throw error;
  }
}

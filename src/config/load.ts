import { isAbsolute, join } from 'node:path';
import type { ConfigFile } from './file/check-config.ts';
import { type ConfigText, readConfigFile } from './file/config-file.ts';
import { readFlags, type CommandArguments, type GivenArguments } from './flags.ts';
import { didYouMean } from './file/nearest.ts';
import { CONFIG_FLAG, type Option, OPTIONS, PASSWORD, type Program, ROWS } from './options.ts';
import { quote } from './quote.ts';
import { SettingsError, TOOLSETS, type Settings } from './settings.ts';
import { type ReadTextFile, resolvePath, xdgFolder } from './file/text-file.ts';
import type { CredentialRef } from './file/secret-ref.ts';
import { singleLine } from '../base/plain-text.ts';

export interface LoadInput {
  /** The words after the program's name and the subcommand. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absolute. */
  readonly home: string;
  /** Base of relative paths in flags and environment variables. */
  readonly cwd: string;
  readonly readFile: ReadTextFile;
  /** Default: `opencode-mcp`. */
  readonly program?: Program;
  /** The subcommand's own flags and arguments; default: none. */
  readonly command?: CommandArguments;
}

export interface LoadedSettings {
  readonly settings: Settings;
  /** One line each; for the log. */
  readonly warnings: readonly string[];
  /** The subcommand's own flags as written, by long name; `true` and `false` for switches. */
  readonly flags: ReadonlyMap<string, string>;
  readonly positionals: readonly string[];
}

/** The settings as written, before the config file is checked. */
export interface WrittenSettings {
  readonly input: LoadInput;
  readonly given: GivenArguments;
  readonly configText: ConfigText | undefined;
  readonly problems: string[];
  readonly warnings: string[];
}

/**
 * Resolves the settings from flag, environment, config file and default, in this order. Throws a `SettingsError` with one line
 * for each problem; no text contains a secret. Only this room reads the environment.
 */
export async function loadSettings(input: LoadInput): Promise<LoadedSettings> {
  const written = readWritten(input);
  if (written.configText === undefined) return settingsOf(written, undefined);
  // Lazy: most people have no config file, and zod is large.
  const { checkConfig } = await import('./file/check-config.ts');
  return settingsOf(written, checkConfig(written.configText, { ...input, ...written }));
}

export function readWritten(input: LoadInput): WrittenSettings {
  const problems: string[] = [];
  const { argv, program = 'opencode-mcp', command = { flags: {}, positionals: false } } = input;
  const given = readFlags(argv, program, command, problems);
  const configText = readConfigFile(configPath(given, problems), input, problems);
  return { input, given, configText, problems, warnings: [] };
}

/** `file` is the checked config file; its problems and warnings are already in `written`. */
export function settingsOf(written: WrittenSettings, file: ConfigFile | undefined): LoadedSettings {
  const { input, given, problems } = written;
  const warnings = [...written.warnings, ...misspelledVariables(input.env)];
  const choose = <T>({ flag, env, key, kind, fallback }: Option<T>): Chosen<T> => {
    const fromFlag = flag === undefined ? undefined : given.flags.get(flag);
    const variable = env === undefined ? undefined : input.env[env] || undefined;
    const text = fromFlag?.text ?? variable;
    const value = kind.parse(text ?? (key === undefined ? undefined : file?.values[key]));
    if (text !== undefined && value === undefined)
      problems.push(`${fromFlag?.written ?? env}: expected ${kind.expected}, got ${quote(text)}`);
    if (value === undefined) return { value: fallback, base: input.cwd, isSet: false };
    return { value, base: text === undefined && file !== undefined ? file.folder : input.cwd, isSet: true };
  };
  const valueOf = <T>(option: Option<T>): T => choose(option).value;
  const resolved = ({ value, base }: Chosen<string>): string => resolvePath(value, input.home, base);
  const registryDir = choose(OPTIONS.registryDir);
  const toolsets = valueOf(OPTIONS.toolsets);
  const registry = { path: resolved(registryDir), explicit: registryDir.isSet };
  const relayDir = valueOf(OPTIONS.relayRegistryDir);
  const username = choose(OPTIONS.username);
  const opencodeBin = choose(OPTIONS.opencodeBin);
  const isPath = opencodeBin.value.includes('/') || opencodeBin.value === '~';
  const socket = choose(OPTIONS.tailscaleSocket);
  const stateHome = xdgFolder(input.env['XDG_STATE_HOME'], join(input.home, '.local', 'state'));
  const stateDir = join(stateHome, 'opencode-mcp');
  const { STATE_DIRECTORY: stateDirectory = '' } = input.env;
  const settings: Settings = {
    registryDir: registry,
    sources: valueOf(OPTIONS.transport),
    discoveryIntervalMs: valueOf(OPTIONS.discoveryIntervalMs),
    healthCheckTimeoutMs: valueOf(OPTIONS.healthCheckTimeoutMs),
    healthConcurrency: valueOf(OPTIONS.healthConcurrency),
    sendTimeoutMs: valueOf(OPTIONS.sendTimeoutMs),
    credentialRules: file?.credentialRules ?? [],
    defaultCredential: chooseCredential(username.isSet ? username.value : undefined, input.env, file),
    instances: file?.instances ?? [],
    toolsets: toolsets === 'all' ? TOOLSETS : toolsets,
    readOnly: valueOf(OPTIONS.readOnly),
    approve: valueOf(OPTIONS.approve),
    approvalRules: file?.approvalRules ?? [],
    logLevel: valueOf(OPTIONS.logLevel),
    stateDir,
    opencodeStateDir: join(stateHome, 'opencode'),
    mdnsInterfaces: valueOf(OPTIONS.mdnsInterfaces),
    notify: file?.notify,
    // systemd sets it for a unit that may not write to the home folder; a list of several has colons.
    serviceDir: isAbsolute(stateDirectory) && !stateDirectory.includes(':') ? stateDirectory : stateDir,
    connected: {
      relaySshCommand: valueOf(OPTIONS.relaySshCommand),
      instanceName: valueOf(OPTIONS.instanceName),
      lanPort: valueOf(OPTIONS.lanPort),
      relayRegistryDir: relayDir === undefined ? registry : { path: relayDir, explicit: true },
      // A bare name is looked up on PATH.
      opencodeBin: isPath ? resolved(opencodeBin) : opencodeBin.value,
    },
    tailnet: {
      socketPath: socket.isSet ? resolved(socket) : undefined,
      nodePort: valueOf(OPTIONS.nodePort),
      ports: valueOf(OPTIONS.tailnetPorts),
      tags: valueOf(OPTIONS.tailnetTags),
      users: valueOf(OPTIONS.tailnetUsers),
    },
  };
  if (problems.length > 0) throw new SettingsError(problems.join('\n'));
  const ownFlags = Object.keys(input.command?.flags ?? {}).flatMap((name) => {
    const flag = given.flags.get(name);
    return flag === undefined ? [] : [[name, flag.text] as const];
  });
  return { settings, warnings, flags: new Map(ownFlags), positionals: given.positionals };
}

interface Chosen<T> {
  readonly value: T;
  /** Base of a relative path: for the config file its folder. */
  readonly base: string;
  /** False for the default. */
  readonly isSet: boolean;
}

/** A user name alone is not a credential. */
function chooseCredential(
  username: string | undefined,
  env: LoadInput['env'],
  file: ConfigFile | undefined,
): CredentialRef | undefined {
  const variable = env[PASSWORD.env];
  const password = variable ? ({ kind: 'value', value: variable } as const) : file?.password;
  return password && { username, password };
}

function configPath(given: GivenArguments, problems: string[]): string | undefined {
  const flag = given.flags.get(CONFIG_FLAG.flag);
  if (flag === undefined || (flag.text !== '' && !flag.text.includes('\0'))) return flag?.text;
  problems.push(`${flag.written}: expected a path, got ${quote(flag.text)}`);
  return undefined;
}

/** A misspelled switch, such as `OPENCODE_MCP_READONLY`, must not stay off unnoticed. */
function misspelledVariables(env: LoadInput['env']): string[] {
  const known = ROWS.flatMap((row) => row.env ?? []);
  return Object.keys(env)
    .filter((name) => name.startsWith('OPENCODE_MCP_') && !known.includes(name))
    .map((name) => ({ name, hint: didYouMean(name, known) }))
    .filter(({ hint }) => hint !== '')
    .map(({ name, hint }) => `${singleLine(name, 80)}: unknown environment variable${hint}`);
}

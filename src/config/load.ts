import { isAbsolute, join } from 'node:path';
import { type CheckConfig, readConfigFile, type ConfigFile } from './file/config-file.ts';
import { readFlags, type CommandArguments, type GivenArguments } from './flags.ts';
import { didYouMean } from './file/nearest.ts';
import { CONFIG_FLAG, type Option, OPTIONS, PASSWORD, type Program, ROWS } from './options.ts';
import { quote } from './quote.ts';
import { SettingsError, TOOLSETS, type Settings } from './settings.ts';
import { type ReadTextFile, resolvePath } from './file/text-file.ts';
import type { CredentialRef } from './file/secret-ref.ts';
import { singleLine } from '../base/plain-text.ts';

export interface LoadInput {
  /** What follows the program's name and the subcommand. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absolute. */
  readonly home: string;
  /** Where relative paths of flags and environment variables start. */
  readonly cwd: string;
  readonly readFile: ReadTextFile;
  /** Whose flags are taken; `opencode-mcp` unless it says otherwise. */
  readonly program?: Program;
  /** What the subcommand takes beside the settings; nothing where unset. */
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

class CheckerNeeded extends Error {}

/** As `settingsOf`; what checks a config file is loaded where there is one, which is then read again. */
export async function loadSettings(input: LoadInput): Promise<LoadedSettings> {
  try {
    return settingsOf(input, () => {
      throw new CheckerNeeded();
    });
  } catch (error) {
    if (!(error instanceof CheckerNeeded)) throw error;
    return settingsOf(input, (await import('./file/check-config.ts')).checkConfig);
  }
}

/**
 * Puts the settings together: flag, environment, config file, default. Throws a `SettingsError` with one line for each
 * thing that is wrong. Nothing else in the program reads the environment. No text of its holds a secret.
 */
export function settingsOf(input: LoadInput, checkConfig: CheckConfig): LoadedSettings {
  const problems: string[] = [];
  const warnings: string[] = [];
  const given = readFlags(
    input.argv,
    input.program ?? 'opencode-mcp',
    input.command ?? { flags: {}, positionals: false },
    problems,
  );
  const file = readConfigFile(configPath(given, problems), { ...input, problems, warnings }, checkConfig);
  warnings.push(...misspelledVariables(input.env));

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
    stateDir: join(stateHome(input), 'opencode-mcp'),
    opencodeStateDir: join(stateHome(input), 'opencode'),
    mdnsInterfaces: valueOf(OPTIONS.mdnsInterfaces),
    notify: file?.notify,
    serviceDir: serviceDir(input),
    connected: {
      relaySshCommand: valueOf(OPTIONS.relaySshCommand),
      instanceName: valueOf(OPTIONS.instanceName),
      lanPort: valueOf(OPTIONS.lanPort),
      relayRegistryDir: relayDir === undefined ? registry : { path: relayDir, explicit: true },
      // A name stays as it is.
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

function stateHome({ env, home }: LoadInput): string {
  const base = env['XDG_STATE_HOME'];
  // The XDG specification: a relative path is to be ignored.
  return base !== undefined && isAbsolute(base) ? base : join(home, '.local', 'state');
}

function serviceDir(input: LoadInput): string {
  // systemd gives it to a unit that may not write into the home folder; a colon would be between several.
  const given = input.env['STATE_DIRECTORY'];
  const isOne = given !== undefined && isAbsolute(given) && !given.includes(':');
  return isOne ? given : join(stateHome(input), 'opencode-mcp');
}

interface Chosen<T> {
  readonly value: T;
  /** Where a relative path in it starts: for one in the config file, beside that file. */
  readonly base: string;
  /** It is not the fallback. */
  readonly isSet: boolean;
}

/** A user name alone gives no credential. */
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

/** A switch that is spelled wrong must not stay off unnoticed: `OPENCODE_MCP_READONLY`. */
function misspelledVariables(env: LoadInput['env']): string[] {
  const known = ROWS.flatMap((row) => row.env ?? []);
  return Object.keys(env)
    .filter((name) => name.startsWith('OPENCODE_MCP_') && !known.includes(name))
    .map((name) => ({ name, hint: didYouMean(name, known) }))
    .filter(({ hint }) => hint !== '')
    .map(({ name, hint }) => `${singleLine(name, 80)}: unknown environment variable${hint}`);
}

import { isAbsolute, join } from 'node:path';
import { readConfigFile, type ConfigFile } from './file/config-file.ts';
import { readFlags, type CommandArguments, type GivenArguments } from './flags.ts';
import { didYouMean } from './file/nearest.ts';
import { CONFIG_FLAG, type Option, OPTIONS, PASSWORD, type Program, ROWS } from './options.ts';
import { quote } from './quote.ts';
import { resolvePath } from './resolve-path.ts';
import { SettingsError, TOOLSETS, type ConnectedSettings, type Settings } from './settings.ts';
import type { ReadTextFile } from './file/text-file.ts';
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

/**
 * Puts the settings together: flag, environment, config file, default. Throws a `SettingsError` with one line for each
 * thing that is wrong. Nothing else in the program reads the environment. No text of its holds a secret.
 */
export function loadSettings(input: LoadInput): LoadedSettings {
  const problems: string[] = [];
  const warnings: string[] = [];
  const given = readFlags(
    input.argv,
    input.program ?? 'opencode-mcp',
    input.command ?? { flags: {}, positionals: false },
    problems,
  );
  const file = readConfigFile(configPath(given, problems), { ...input, problems, warnings });
  warnings.push(...misspelledVariables(input.env));

  const choose = <T>(option: Option<T>): Chosen<T> | undefined => chooseValue(option, given, input.env, file, problems);
  const valueOf = <T>(option: Option<T>): T => choose(option)?.value ?? option.fallback;
  const registryDir = choose(OPTIONS.registryDir);
  const toolsets = valueOf(OPTIONS.toolsets);
  const defaultCredential = chooseCredential(choose(OPTIONS.username)?.value, input.env, file);
  /** Where a relative path starts: for one in the config file, beside that file. */
  const baseOf = (chosen: Chosen<unknown> | undefined): string =>
    chosen?.origin === 'file' && file ? file.folder : input.cwd;
  const registryPath = resolvePath(registryDir?.value ?? OPTIONS.registryDir.fallback, input.home, baseOf(registryDir));
  const opencodeBin = choose(OPTIONS.opencodeBin);
  const socket = choose(OPTIONS.tailscaleSocket);
  const connected = connectedSettings({
    relaySshCommand: valueOf(OPTIONS.relaySshCommand),
    instanceName: valueOf(OPTIONS.instanceName),
    relayRegistryDir: valueOf(OPTIONS.relayRegistryDir) ?? registryPath,
    opencodeBin: program(opencodeBin?.value ?? OPTIONS.opencodeBin.fallback, input.home, baseOf(opencodeBin)),
  });
  const settings: Settings = {
    registryDir: { path: registryPath, explicit: registryDir !== undefined },
    sources: valueOf(OPTIONS.transport),
    discoveryIntervalMs: valueOf(OPTIONS.discoveryIntervalMs),
    healthCheckTimeoutMs: valueOf(OPTIONS.healthCheckTimeoutMs),
    healthConcurrency: valueOf(OPTIONS.healthConcurrency),
    sendTimeoutMs: valueOf(OPTIONS.sendTimeoutMs),
    credentialRules: file?.credentialRules ?? [],
    ...(defaultCredential && { defaultCredential }),
    instances: file?.instances ?? [],
    toolsets: toolsets === 'all' ? TOOLSETS : toolsets,
    readOnly: valueOf(OPTIONS.readOnly),
    approve: valueOf(OPTIONS.approve),
    approvalRules: file?.approvalRules ?? [],
    logLevel: valueOf(OPTIONS.logLevel),
    stateDir: stateDirectory(input),
    mdnsInterfaces: valueOf(OPTIONS.mdnsInterfaces),
    connected,
    tailnet: {
      ...(socket && { socketPath: resolvePath(socket.value, input.home, baseOf(socket)) }),
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

function connectedSettings(values: {
  readonly relaySshCommand: string | undefined;
  readonly instanceName: string | undefined;
  readonly relayRegistryDir: string;
  readonly opencodeBin: string;
}): ConnectedSettings {
  const { relaySshCommand, instanceName, relayRegistryDir, opencodeBin } = values;
  return {
    ...(relaySshCommand !== undefined && { relaySshCommand }),
    ...(instanceName !== undefined && { instanceName }),
    relayRegistryDir,
    opencodeBin,
  };
}

function stateDirectory({ env, home }: LoadInput): string {
  const base = env['XDG_STATE_HOME'];
  // The XDG specification: a relative path is to be ignored.
  return join(base !== undefined && isAbsolute(base) ? base : join(home, '.local', 'state'), 'opencode-mcp');
}

/** A name stays as it is; anything with a slash, and `~`, is a path. */
function program(written: string, home: string, base: string): string {
  return written.includes('/') || written === '~' ? resolvePath(written, home, base) : written;
}

interface Chosen<T> {
  readonly value: T;
  readonly origin: 'flag' | 'environment' | 'file';
}

function chooseValue<T>(
  option: Option<T>,
  given: GivenArguments,
  env: LoadInput['env'],
  file: ConfigFile | undefined,
  problems: string[],
): Chosen<T> | undefined {
  const parse = (written: string, text: string, origin: 'flag' | 'environment'): Chosen<T> | undefined => {
    const value = option.kind.fromText(text);
    if (value !== undefined) return { value, origin };
    problems.push(`${written}: expected ${option.kind.expected}, got ${quote(text)}`);
    return undefined;
  };
  const flag = option.flag === undefined ? undefined : given.flags.get(option.flag);
  if (flag !== undefined) return parse(flag.written, flag.text, 'flag');
  const variable = option.env === undefined ? undefined : env[option.env];
  if (option.env !== undefined && variable) return parse(option.env, variable, 'environment');
  const value = file && option.key !== undefined ? option.kind.fromJson(file.values[option.key]) : undefined;
  return value === undefined ? undefined : { value, origin: 'file' };
}

/** A user name alone gives no credential. */
function chooseCredential(
  username: string | undefined,
  env: LoadInput['env'],
  file: ConfigFile | undefined,
): CredentialRef | undefined {
  const variable = env[PASSWORD.env];
  const password = variable ? ({ kind: 'value', value: variable } as const) : file?.password;
  return password && { ...(username !== undefined && { username }), password };
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

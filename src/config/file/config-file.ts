import { shellWord } from '../../base/plain-text.ts';
import { dirname, isAbsolute, join } from 'node:path';
import * as z from 'zod';
import { checkApprovalRules, checkCredentialRules, checkInstances } from './config-lists.ts';
import { checkSecret, configSecretSchema, type ConfigContext } from './config-secret.ts';
import { APPROVALS, CREDENTIALS, INSTANCES, OPTIONS, PASSWORD, ROWS } from '../options.ts';
import { quote, shownPath } from '../quote.ts';
import type { ApprovalRule, CredentialRule, StaticInstance } from '../settings.ts';
import { parseShape } from './shape.ts';
import { readFailure, type ReadTextFile, resolvePath, type TextFile } from './text-file.ts';
import type { SecretRef } from './secret-ref.ts';
import { errorCode } from '../../base/errors.ts';

export interface ConfigFile {
  /** Where its relative paths start. */
  readonly folder: string;
  /** By key, as written; those of the plain options are valid. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly password?: SecretRef;
  readonly credentialRules: readonly CredentialRule[];
  readonly instances: readonly StaticInstance[];
  readonly approvalRules: readonly ApprovalRule[];
}

export interface ConfigFileInput {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly cwd: string;
  readonly readFile: ReadTextFile;
  readonly problems: string[];
  readonly warnings: string[];
}

/** Reads and checks the config file: the one given by `--config`, which must exist, or the default one, which may. */
export function readConfigFile(given: string | undefined, input: ConfigFileInput): ConfigFile | undefined {
  const path = given === undefined ? defaultPath(input.env, input.home) : resolvePath(given, input.home, input.cwd);
  let file: TextFile;
  try {
    file = input.readFile(path);
  } catch (error) {
    if (given === undefined && isMissing(error)) return undefined;
    input.problems.push(
      `${given === undefined ? 'config file' : '--config'}: cannot read ${shownPath(path)}: ${readFailure(error)}`,
    );
    return undefined;
  }
  const json = parseJson(file.text, shownPath(path), input.problems);
  return json === undefined ? undefined : checkConfig(json.value, path, file.mode, input);
}

function checkConfig(
  json: unknown,
  path: string,
  mode: number | undefined,
  input: ConfigFileInput,
): ConfigFile | undefined {
  const shownName = shownPath(path);
  const { problems, warnings } = input;
  let hasPlainSecret = false;
  const context: ConfigContext = { ...input, folder: dirname(path), plainSecret: () => void (hasPlainSecret = true) };
  const keys = ROWS.flatMap(({ key }) => key ?? []);
  const shape = z.strictObject(Object.fromEntries(keys.map((key) => [key, z.unknown().optional()])), {
    error: 'an object',
  });
  const raw = parseShape(shape, json, `${shownName}: `, problems);
  if (raw === undefined) return undefined;

  for (const { key, kind } of Object.values(OPTIONS)) {
    if (key === undefined || raw[key] === undefined || kind.parse(raw[key]) !== undefined) continue;
    problems.push(`${shownName}: ${key}: expected ${kind.expected}, got ${shown(raw[key])}`);
  }
  const at = (key: string): string => `${shownName}: ${key}`;
  const secret =
    raw[PASSWORD.key] === undefined
      ? undefined
      : parseShape(configSecretSchema(), raw[PASSWORD.key], at(PASSWORD.key), problems);
  const password = secret === undefined ? undefined : checkSecret(secret, at(PASSWORD.key), context);
  const credentialRules = checkCredentialRules(raw[CREDENTIALS.key] ?? [], at(CREDENTIALS.key), context);
  const instances = checkInstances(raw[INSTANCES.key] ?? [], at(INSTANCES.key), context);
  const approvalRules = checkApprovalRules(raw[APPROVALS.key] ?? [], at(APPROVALS.key), context);

  warnings.push(...modeWarnings(shownName, mode ?? 0, hasPlainSecret));
  return {
    folder: context.folder,
    values: raw,
    credentialRules,
    instances,
    approvalRules,
    ...(password && { password }),
  };
}

function modeWarnings(shownName: string, mode: number, hasPlainSecret: boolean): string[] {
  const octal = mode.toString(8).padStart(4, '0');
  if ((mode & 0o022) !== 0)
    return [
      `${shownName}: other users can change it, and it can name commands to run (mode ${octal}); run: chmod 600 ${shellWord(shownName)}`,
    ];
  if (hasPlainSecret && (mode & 0o077) !== 0)
    return [
      `${shownName}: holds a secret, and other users can read it (mode ${octal}); run: chmod 600 ${shellWord(shownName)}`,
    ];
  return [];
}

function defaultPath(env: ConfigFileInput['env'], home: string): string {
  const base = env['XDG_CONFIG_HOME'];
  // The XDG specification: a relative path is to be ignored.
  return join(base !== undefined && isAbsolute(base) ? base : join(home, '.config'), 'opencode-mcp', 'config.json');
}

function isMissing(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** Neither the parser's message nor its error leaves here: both quote the text around the mistake, which may be a password. */
function parseJson(text: string, shownName: string, problems: string[]): { readonly value: unknown } | undefined {
  const json = text.replace(/^\ufeff/, '');
  try {
    return { value: JSON.parse(json) as unknown };
  } catch (error) {
    const offset = error instanceof SyntaxError ? errorOffset(error.message, json) : undefined;
    const place = offset === undefined ? '' : ` (line ${json.slice(0, offset).split('\n').length})`;
    problems.push(`${shownName}: is not valid JSON${place}; comments and trailing commas are not allowed`);
    return undefined;
  }
}

/** V8 gives the position of some mistakes; for the others it is the first text that is no JSON token. */
function errorOffset(message: string, json: string): number | undefined {
  const position = /at position (\d+)/.exec(message)?.[1];
  if (position !== undefined) return Number(position);
  const token = /[\s[\]{}:,]|"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*|true|false|null/y;
  while (token.lastIndex < json.length) {
    const from = token.lastIndex;
    if (!token.test(json)) return from;
  }
  return undefined;
}

/** A plain option's value in an error. None of them is a secret, but one may lie in an object that is out of place. */
function shown(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return String(value);
  if (!Array.isArray(value)) return 'an object';
  return value.every((item) => typeof item === 'string') ? quote(value.join(',')) : 'an array of other things';
}

import { isAbsolute, join } from 'node:path';
import { shownPath } from '../quote.ts';
import type { NotifySettings } from '../notify.ts';
import type { ApprovalRule, CredentialRule, StaticInstance } from '../settings.ts';
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
  readonly notify?: NotifySettings;
}

export interface ConfigFileInput {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly cwd: string;
  readonly readFile: ReadTextFile;
  readonly problems: string[];
  readonly warnings: string[];
}

/** Checks what the file at `path` holds. Problems and warnings go where `input` has room for them. */
export type CheckConfig = (
  json: unknown,
  file: { readonly path: string; readonly mode: number | undefined },
  input: ConfigFileInput,
) => ConfigFile | undefined;

/** Reads and checks the config file: the one given by `--config`, which must exist, or the default one, which may. */
export function readConfigFile(
  given: string | undefined,
  input: ConfigFileInput,
  check: CheckConfig,
): ConfigFile | undefined {
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
  return json === undefined ? undefined : check(json.value, { path, mode: file.mode }, input);
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

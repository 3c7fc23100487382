import { join } from 'node:path';
import { shownPath } from '../quote.ts';
import { readFailure, type ReadTextFile, resolvePath, type TextFile, xdgFolder } from './text-file.ts';
import { errorCode } from '../../base/errors.ts';

/** The parsed config file, not checked yet. */
export interface ConfigText {
  readonly path: string;
  readonly mode: number | undefined;
  readonly json: unknown;
}

interface Places {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly cwd: string;
  readonly readFile: ReadTextFile;
}

/** Reads the config file: the one given by `--config`, which must exist, or the default one, which may. */
export function readConfigFile(
  given: string | undefined,
  { env, home, cwd, readFile }: Places,
  problems: string[],
): ConfigText | undefined {
  const path =
    given === undefined
      ? join(xdgFolder(env['XDG_CONFIG_HOME'], join(home, '.config')), 'opencode-mcp', 'config.json')
      : resolvePath(given, home, cwd);
  let file: TextFile;
  try {
    file = readFile(path);
  } catch (error) {
    const isMissing = ['ENOENT', 'ENOTDIR'].includes(errorCode(error) ?? '');
    if (given === undefined && isMissing) return undefined;
    const setting = given === undefined ? 'config file' : '--config';
    problems.push(`${setting}: cannot read ${shownPath(path)}: ${readFailure(error)}`);
    return undefined;
  }
  const json = parseJson(file.text, shownPath(path), problems);
  return json && { path, mode: file.mode, json: json.value };
}

/** Hides the parser's message and error, which quote the text around the mistake: it may be a password. */
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

/** V8 reports the position of some errors; for others, this finds the first text that is not a JSON token. */
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

import { realpathSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

import type { Place, ServerCommand } from './clients.ts';

/** Folders that vanish with a shell or a cache. */
const TEMPORARY = /[\\/](?:fnm_multishells|_npx|tmp|Temp)[\\/]|^\/run\/user\//;
/** Folders that vanish with the next version: `v20.19.0` and `22.1.0_1` of version managers and Homebrew, a snap's revision, Nix's store. */
const VERSIONED = /[\\/]v?\d+\.\d+(?:\.\d+)?(?:_\d+)?[\\/]|^\/snap\/[^/]+\/x?\d+\/|^\/nix\/store\//;

/**
 * The command of this program, for clients that have no PATH: absolute paths of Node and of the program. Of several paths to one
 * file it takes the most durable: no version in it, or at least not temporary. `script` is the path in the process's arguments.
 */
export function ownCommand({
  execPath,
  script,
  place,
  realPath = realPathOf,
}: {
  readonly execPath: string;
  readonly script: string;
  readonly place: Place;
  readonly realPath?: (path: string) => string | undefined;
}): ServerCommand {
  const node = mostDurable(execPath, onPath(place, executable('node', place)), realPath);
  const program = mostDurable(script, onPath(place, 'opencode-mcp'), realPath);
  return { words: [node, program], warnings: [...warningsOf(node, 'Node'), ...warningsOf(program, 'opencode-mcp')] };
}

/** The absolute path of the first program with this name on PATH. */
export function findOnPath(place: Place, name: string): string | undefined {
  return onPath(place, executable(name, place)).find((path) => realPathOf(path) !== undefined);
}

/**
 * The arguments of this program in a client's command; undefined if the command starts something else. npx counts as something else,
 * because the npm package of this name is another project's.
 */
export function wordsAfterOwn(words: readonly string[]): readonly string[] | undefined {
  const [first = '', second = ''] = words;
  if (isOwn(first)) return words.slice(1);
  const program = baseName(first);
  if (/^node(?:js)?(?:\.exe)?$/.test(program)) return isOwn(second) ? words.slice(2) : undefined;
  return undefined;
}

/** Options of ssh that take the next word as their value. */
const SSH_VALUE = /^-[A-Za-z0-9]*[BbcDEeFIiJLlmOoPpQRSWw]$/;
/** Words before the program in a shell command: `env A=b`, `exec`, `bash -lc`. */
const BEFORE_PROGRAM = /^(?:env|exec|(?:.*\/)?(?:ba|z|da|fi|k)?sh|-[ilc]+|\w+=.*)$/;

/** Whether a client's command starts this program, here, by ssh or in WSL. */
export function startsOwn(words: readonly string[]): boolean {
  if (wordsAfterOwn(words) !== undefined) return true;
  const program = baseName(words[0] ?? '').toLowerCase();
  let at = 1;
  if (/^ssh(?:\.exe)?$/.test(program)) {
    while (words[at]?.startsWith('-')) at += SSH_VALUE.test(words[at] ?? '') ? 2 : 1;
    // The destination.
    at += 1;
  } else if (/^wsl(?:\.exe)?$/.test(program)) at = words.findIndex((word) => /^(?:--|-e|--exec)$/.test(word)) + 1;
  else return false;
  const remote = words.slice(at).join(' ');
  // Quotes may enclose a path with spaces, or a whole command for another shell.
  return [remote.match(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g) ?? [], remote.split(/\s+/)].some((split) => {
    const plain = split.map((word) => word.replaceAll(/['"]/g, ''));
    return wordsAfterOwn(plain.slice(plain.findIndex((word) => !BEFORE_PROGRAM.test(word)))) !== undefined;
  });
}

function isOwn(word: string): boolean {
  return /^opencode-mcp(?:\.js|\.cmd)?$/.test(baseName(word));
}

function baseName(path: string): string {
  return path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1);
}

/** The most durable of `original`, the file itself, and those of `paths` that lead to the same file. */
function mostDurable(
  original: string,
  paths: readonly string[],
  realPath: (path: string) => string | undefined,
): string {
  const target = realPath(original);
  if (target === undefined) return original;
  const same = [original, ...paths.filter((path) => realPath(path) === target), target];
  return (
    same.find((path) => !TEMPORARY.test(path) && !VERSIONED.test(path)) ??
    same.find((path) => !TEMPORARY.test(path)) ??
    original
  );
}

function warningsOf(path: string, what: string): string[] {
  if (TEMPORARY.test(path)) return [`${what} is in a temporary place, ${path}: install it, and run init from there`];
  if (VERSIONED.test(path)) return [`${what} is at ${path}: after each update of Node, run init again`];
  return [];
}

function onPath({ env, platform }: Place, name: string): string[] {
  const folders = (env['PATH'] ?? env['Path'] ?? '').split(platform === 'win32' ? ';' : delimiter);
  return folders.filter((folder) => isAbsolute(folder)).map((folder) => join(folder, name));
}

function executable(name: string, { platform }: Place): string {
  return platform === 'win32' ? `${name}.exe` : name;
}

/** The file at the end of a path's links; undefined if there is none. */
export function realPathOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

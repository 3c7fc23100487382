import { realpathSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

import type { Place, Words } from './clients.ts';

/** The command that starts this program, for clients that have no PATH. */
export interface OwnCommand {
  readonly words: Words;
  /** Where it may not stay: what moves it, in one sentence each. */
  readonly warnings: readonly string[];
}

/** Folders that live as long as one shell or until a cache is emptied. */
const TEMPORARY = /[\\/](?:fnm_multishells|_npx|tmp|Temp)[\\/]|^\/run\/user\//;
/** Folders of one version, gone with the next: `v20.19.0`, `22.1.0_1` of version managers and Homebrew, a snap's revision, Nix's store. */
const VERSIONED = /[\\/]v?\d+\.\d+(?:\.\d+)?(?:_\d+)?[\\/]|^\/snap\/[^/]+\/x?\d+\/|^\/nix\/store\//;

/**
 * Absolute paths of Node and of the program. Of several paths to one file the one that lasts: a link without a version in it
 * before a version manager's folder, and that before one that goes with the shell. `script` is as the process was started.
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
  /** The file at the end of a path's links; undefined where there is none. */
  readonly realPath?: (path: string) => string | undefined;
}): OwnCommand {
  const node = lasting(execPath, onPath(place, executable('node', place)), realPath);
  const program = lasting(script, onPath(place, 'opencode-mcp'), realPath);
  const warnings = [
    ...warningsOf(node, 'Node', 'another version of Node'),
    ...warningsOf(program, 'opencode-mcp', 'another version of Node'),
  ];
  return { words: [node, program], warnings };
}

/** The first path of this name on PATH, absolute. */
export function findOnPath(place: Place, name: string): string | undefined {
  return onPath(place, executable(name, place)).find((path) => realPathOf(path) !== undefined);
}

/**
 * The words after this program in a command of some client, or undefined where the command starts something else.
 * The package of this name on npm is another project's, so npx does not start ours.
 */
export function wordsAfterOwn(words: readonly string[]): readonly string[] | undefined {
  const [first = '', second = ''] = words;
  if (isOwn(first)) return words.slice(1);
  const program = baseName(first);
  if (/^node(?:js)?(?:\.exe)?$/.test(program)) return isOwn(second) ? words.slice(2) : undefined;
  return undefined;
}

/** ssh's options that take the next word. */
const SSH_VALUE = /^-[A-Za-z0-9]*[BbcDEeFIiJLlmOoPpQRSWw]$/;
/** What may stand before the program in a command for a shell: `env A=b`, `exec`, `bash -lc`. */
const BEFORE_PROGRAM = /^(?:env|exec|(?:.*\/)?(?:ba|z|da|fi|k)?sh|-[ilc]+|\w+=.*)$/;

/** Whether a command of some client starts this program, here, by ssh or in WSL. */
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
  // Quotes hold a path together, or a command for another shell.
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

/** Of `original`, these `paths` and the file itself, as far as they are the same file, the path that lasts longest. */
function lasting(original: string, paths: readonly string[], realPath: (path: string) => string | undefined): string {
  const target = realPath(original);
  if (target === undefined) return original;
  const same = [original, ...paths.filter((path) => realPath(path) === target), target];
  return (
    same.find((path) => !TEMPORARY.test(path) && !VERSIONED.test(path)) ??
    same.find((path) => !TEMPORARY.test(path)) ??
    original
  );
}

function warningsOf(path: string, what: string, mover: string): string[] {
  if (TEMPORARY.test(path)) return [`${what} is in a temporary place, ${path}: install it, and run init from there`];
  if (VERSIONED.test(path)) return [`${what} is at ${path}: after ${mover}, run init again`];
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

import { isDeepStrictEqual } from 'node:util';

import type { Client, Words } from './clients.ts';
import { startsOwn, wordsAfterOwn } from './command.ts';
import { EditError } from './edit-error.ts';
import { readJson, removeJson, setJson } from './json-edit.ts';
import { addTable, readToml, removeTable, setInTable } from './toml-edit.ts';

/** The server's name in a client's file. */
export const SERVER_NAME = 'opencode';

export type EditRequest = { readonly kind: 'add'; readonly words: Words } | { readonly kind: 'remove' };

export interface Edit {
  readonly kind: 'add' | 'update' | 'remove' | 'none';
  readonly text: string;
}

type Tree = Record<string, unknown>;

/**
 * Adds, updates or removes the entry in a client's file. It parses the result and compares it with what was meant: a file with
 * unusual syntax is refused, not damaged.
 * @throws {EditError} the file is malformed, or the entry cannot be changed safely
 */
export function editConfig(client: Client, text: string, wanted: EditRequest): Edit {
  // Windows programs start files with a byte order mark.
  const mark = text.startsWith('\ufeff') ? '\ufeff' : '';
  const body = text.slice(mark.length);
  const file: ClientFile = { client, text: body, tree: read(client, body) };
  const found = findOwn(client, file.tree);
  const edit = wanted.kind === 'remove' ? removeEntry(file, found) : putEntry(file, found, wanted.words);
  return edit === undefined ? { kind: 'none', text } : { kind: edit.kind, text: mark + edit.text };
}

interface ClientFile {
  readonly client: Client;
  readonly text: string;
  readonly tree: Tree;
}

function removeEntry({ client, text, tree }: ClientFile, found: Found | undefined): Edit | undefined {
  if (found === undefined) return undefined;
  const { path } = found;
  const after = client.format === 'toml' ? removeTable(text, path) : removeJson(text, path);
  check(client, after, without(tree, path), withoutOne(tree, path));
  return { kind: 'remove', text: after };
}

function putEntry(file: ClientFile, found: Found | undefined, wanted: Words): Edit | undefined {
  if (found === undefined) return addEntry(file, wanted);
  const words = withExtras(wanted, found.words);
  return isDeepStrictEqual(words, found.words) ? undefined : updateEntry(file, found.path, words);
}

function addEntry({ client, text, tree }: ClientFile, words: Words): Edit {
  const path = [...sectionOf(client, tree), SERVER_NAME];
  if (at(tree, path) !== undefined)
    throw new EditError(`it has another server called "${SERVER_NAME}"; rename that one`);
  const entry = client.entry(words);
  const after = client.format === 'toml' ? addTable(text, path, entry) : setJson(text, path, entry);
  check(client, after, withValue(tree, path, entry));
  return { kind: 'add', text: after };
}

/** Changes only the command: the rest of the entry is the person's. */
function updateEntry({ client, text, tree }: ClientFile, path: readonly string[], words: Words): Edit {
  const { command, args } = client.entry(words);
  const values = { command, ...(args !== undefined && { args }) };
  let after = client.format === 'toml' ? setInTable(text, path, values) : text;
  let expected = tree;
  for (const [key, value] of Object.entries(values)) {
    if (client.format !== 'toml') after = setJson(after, [...path, key], value);
    expected = withValue(expected, [...path, key], value);
  }
  check(client, after, expected);
  return { kind: 'update', text: after };
}

/** The command by which a client's file starts this program, if it does. @throws {EditError} the file is malformed */
export function ownWords(client: Client, text: string): readonly string[] | undefined {
  return findOwn(client, read(client, text.replace(/^\ufeff/, '')))?.words;
}

/** The text for an empty file. */
export function snippet(client: Client, words: Words): string {
  return editConfig(client, '', { kind: 'add', words }).text;
}

function read({ format }: Client, text: string): Tree {
  return format === 'toml' ? readToml(text) : readJson(text, format);
}

function check(client: Client, text: string, ...expected: readonly Tree[]): void {
  let isMeant = false;
  try {
    const now = plain(read(client, text));
    isMeant = expected.some((tree) => isDeepStrictEqual(now, plain(tree)));
  } catch {
    // The result is malformed.
  }
  if (!isMeant) throw new EditError('it is written in a way that cannot be changed safely');
}

/** The TOML parser's tables have no prototype, which a comparison would notice. */
function plain(tree: Tree): unknown {
  return structuredClone(tree);
}

interface Found {
  readonly path: readonly string[];
  readonly words: readonly string[];
}

/** The entry that starts this program, whatever its name. */
function findOwn(client: Client, tree: Tree): Found | undefined {
  for (const section of client.sections) {
    const servers = at(tree, section);
    if (!isTree(servers)) continue;
    for (const [name, entry] of Object.entries(servers)) {
      const words = wordsOf(entry);
      if (startsOwn(words)) return { path: [...section, name], words };
    }
  }
  return undefined;
}

function wordsOf(entry: unknown): readonly string[] {
  if (!isTree(entry)) return [];
  return [entry['command'], entry['args']].flat().filter((word) => typeof word === 'string');
}

/** Keeps arguments that the person has added, such as `--read-only`. */
function withExtras(words: Words, found: readonly string[]): Words {
  const isHere = wordsAfterOwn(words) !== undefined;
  return isHere ? [...words, ...(wordsAfterOwn(found) ?? [])] : words;
}

/** The first section that exists and holds servers, and is not itself a server of that name; otherwise the last. */
function sectionOf({ sections }: Client, tree: Tree): readonly string[] {
  const isSection = (value: unknown): boolean => isTree(value) && !('type' in value) && !('enabled' in value);
  return sections.find((path) => isSection(at(tree, path))) ?? sections.at(-1) ?? [];
}

function at(tree: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (isTree(inner) && Object.hasOwn(inner, key) ? inner[key] : undefined),
    tree,
  );
}

function withValue(tree: Tree, [key = '', ...rest]: readonly string[], value: unknown): Tree {
  const inner = tree[key];
  return { ...tree, [key]: rest.length === 0 ? value : withValue(isTree(inner) ? inner : {}, rest, value) };
}

function withoutOne(tree: Tree, [key = '', ...rest]: readonly string[]): Tree {
  const { [key]: inner, ...others } = tree;
  return rest.length === 0 || !isTree(inner) ? others : { ...tree, [key]: withoutOne(inner, rest) };
}

/** Also removes objects that become empty. In TOML, headers of such tables stay. */
function without(tree: Tree, path: readonly string[]): Tree {
  const left = withoutOne(tree, path);
  const around = path.slice(0, -1);
  const object = at(left, around);
  return around.length > 0 && isTree(object) && Object.keys(object).length === 0 ? without(left, around) : left;
}

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

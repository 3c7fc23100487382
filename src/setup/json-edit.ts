import {
  createScanner,
  findNodeAtLocation,
  type Node,
  type ParseError,
  parse,
  parseTree,
  printParseErrorCode,
} from 'jsonc-parser';

import { brokenAt, EditError } from './edit-error.ts';
import type { Format } from './clients.ts';

/** Values of the parser's `SyntaxKind`, a const enum, which needs a compiler that sees all files. */
const COMMA_TOKEN = 5;
const LINE_COMMENT = 12;
const LINE_BREAK = 14;
const TRIVIA = 15;

/** An empty text is an empty object. @throws {EditError} */
export function readJson(text: string, format: Format): Record<string, unknown> {
  if (text.trim() === '') return {};
  const errors: ParseError[] = [];
  const value: unknown = parse(text, errors, {
    disallowComments: format === 'json',
    allowTrailingComma: format === 'jsonc',
  });
  const [first] = errors;
  if (first !== undefined) throw brokenAt(lineOf(text, first.offset), reasonOf(first));
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new EditError('it is not a JSON object');
  return value as Record<string, unknown>;
}

/** Adds or replaces the value at `path`. All other text stays; the parser's own `modify` reformats it and loses comments. */
export function setJson(text: string, path: readonly string[], value: unknown): string {
  const root = text.trim() === '' ? undefined : treeOf(text);
  if (root === undefined) return `${shown(nested(path, value), { eol: '\n', indent: '', unit: '  ' })}\n`;
  const node = findNodeAtLocation(root, [...path]);
  if (node !== undefined) {
    const written = shown(value, layoutOf(text, node));
    return replace(text, node.offset, node.offset + node.length, written);
  }
  // The deepest object that exists gets the rest of the path.
  for (let depth = path.length - 1; ; depth -= 1) {
    const object = depth === 0 ? root : findNodeAtLocation(root, path.slice(0, depth));
    if (object === undefined) continue;
    if (object.type !== 'object') throw new EditError(`${path.slice(0, depth).join('.')} is not an object`);
    return insert(text, object, path[depth] ?? '', nested(path.slice(depth + 1), value));
  }
}

/** Removes the value at `path`, and objects around it that become empty, unless they hold a comment. */
export function removeJson(text: string, path: readonly string[]): string {
  const after = removeOne(text, path);
  const around = path.slice(0, -1);
  if (around.length === 0) return after;
  const object = findNodeAtLocation(treeOf(after), around);
  const inside = object === undefined ? undefined : after.slice(object.offset + 1, object.offset + object.length - 1);
  return inside?.trim() === '' ? removeJson(after, around) : after;
}

interface Layout {
  readonly eol: string;
  /** Of the line on which the value starts. */
  readonly indent: string;
  /** Added by each level. */
  readonly unit: string;
}

function insert(text: string, object: Node, key: string, value: unknown): string {
  const { eol, indent, unit } = layoutOf(text, object);
  const end = object.offset + object.length - 1;
  const last = object.children?.at(-1);
  if (last === undefined) {
    const property = `${indent}${unit}${propertyText(key, value, { eol, indent: indent + unit, unit })}`;
    const inside = text.slice(object.offset + 1, end).trimEnd();
    return replace(text, object.offset + 1, end, `${inside}${eol}${property}${eol}${indent}`);
  }
  const at = last.offset + last.length;
  const comma = tokenAfter(text, at, COMMA_TOKEN);
  const place = tokenAfter(text, comma === undefined ? at : comma + 1, LINE_BREAK);
  if (place === undefined) {
    // The object is on one line and stays there.
    const before = comma === undefined ? ', ' : ' ';
    const there = comma === undefined ? at : comma + 1;
    return replace(text, there, there, `${before}${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  }
  const own = layoutOf(text, last);
  const property = `${eol}${own.indent}${propertyText(key, value, own)}${comma === undefined ? '' : ','}`;
  const added = replace(text, place, place, property);
  return comma === undefined ? replace(added, at, at, ',') : added;
}

function removeOne(text: string, path: readonly string[]): string {
  const property = findNodeAtLocation(treeOf(text), [...path])?.parent;
  const object = property?.parent;
  if (property === undefined || object?.children === undefined) return text;
  const lineStart = text.lastIndexOf('\n', property.offset - 1);
  const comma = tokenAfter(text, property.offset + property.length, COMMA_TOKEN);
  const end = comma === undefined ? property.offset + property.length : comma + 1;
  const hasOwnLines =
    lineStart !== -1 &&
    text.slice(lineStart, property.offset).trim() === '' &&
    /^[ \t]*(?:\r?\n|\/[/*])/.test(text.slice(end, text.indexOf('\n', end) + 1));
  const start = !hasOwnLines ? property.offset : text[lineStart - 1] === '\r' ? lineStart - 1 : lineStart;
  const previous = object.children[object.children.indexOf(property) - 1];
  const rest = hasOwnLines || comma === undefined ? text.slice(end) : text.slice(end).replace(/^ /, '');
  let before = text.slice(0, start);
  if (comma === undefined && previous !== undefined) {
    const orphan = tokenAfter(text, previous.offset + previous.length, COMMA_TOKEN);
    if (orphan !== undefined) before = before.slice(0, orphan) + before.slice(orphan + 1);
    if (!hasOwnLines) before = before.trimEnd();
  }
  const isEmpty = object.children.length === 1 && /\{\s*$/.test(before) && /^\s*\}/.test(rest);
  return isEmpty ? before.trimEnd() + rest.trimStart() : before + rest;
}

/** Offset of the first such token after `from`; undefined if anything but comments and white space comes before it. */
function tokenAfter(text: string, from: number, wanted: number): number | undefined {
  const scanner = createScanner(text);
  scanner.setPosition(from);
  for (;;) {
    const kind: number = scanner.scan();
    if (kind === wanted) return scanner.getTokenOffset();
    if (kind < LINE_COMMENT || kind > TRIVIA) return undefined;
  }
}

function treeOf(text: string): Node {
  const root = parseTree(text, [], { allowTrailingComma: true });
  if (root === undefined) throw new EditError('it is not a JSON object');
  return root;
}

function layoutOf(text: string, node: Node): Layout {
  const indent = indentAt(text, node.offset);
  const object = node.type === 'property' ? node.parent : node;
  const first = object?.children?.[0];
  const inner = first === undefined ? '' : indentAt(text, first.offset);
  const outer = object === undefined ? '' : indentAt(text, object.offset);
  // An empty object, or one on a single line, shows no indentation: take the file's first indented line.
  const step = inner.startsWith(outer) ? inner.slice(outer.length) : '';
  const unit = step || /^([ \t]+)\S/m.exec(text)?.[1] || '  ';
  return { eol: text.includes('\r\n') ? '\r\n' : '\n', indent, unit };
}

function indentAt(text: string, offset: number): string {
  return /^[ \t]*/.exec(text.slice(text.lastIndexOf('\n', offset - 1) + 1))?.[0] ?? '';
}

function propertyText(key: string, value: unknown, layout: Layout): string {
  return `${JSON.stringify(key)}: ${shown(value, layout)}`;
}

/** JSON with each list on one line, to keep the shown change short. */
function shown(value: unknown, layout: Layout): string {
  if (Array.isArray(value)) return `[${value.map((item) => shown(item, layout)).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const { eol, indent, unit } = layout;
  const inner = { ...layout, indent: indent + unit };
  const lines = Object.entries(value).map(([key, item]) => `${inner.indent}${propertyText(key, item, inner)}`);
  return `{${eol}${lines.join(`,${eol}`)}${eol}${indent}}`;
}

function nested(path: readonly string[], value: unknown): unknown {
  return path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
}

function replace(text: string, from: number, to: number, by: string): string {
  return text.slice(0, from) + by + text.slice(to);
}

function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

/** `CloseBraceExpected` in words, without text of the file, which may hold secrets. */
function reasonOf({ error }: ParseError): string {
  return printParseErrorCode(error)
    .replace(/(?<=[a-z])(?=[A-Z])/g, ' ')
    .toLowerCase();
}

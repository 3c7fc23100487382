import { parse, TomlError } from 'smol-toml';

import { brokenAt } from './edit-error.ts';

/** @throws {EditError} */
export function readToml(text: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (error) {
    // The rest of the message is the line itself, which may hold a secret.
    if (error instanceof TomlError) throw brokenAt(error.line, error.message.split('\n', 1)[0] ?? '');
    throw error;
  }
}

/** Adds the table `[section.name]` at the end. All other text stays. */
export function addTable(text: string, path: readonly string[], values: Readonly<Record<string, unknown>>): string {
  const eol = eolOf(text);
  const before = text === '' || text.endsWith('\n') ? text : text + eol;
  const lines = [`[${path.map(keyText).join('.')}]`, ...Object.entries(values).map(lineOf)];
  return `${before}${before.trim() === '' ? '' : eol}${lines.join(eol)}${eol}`;
}

/** Sets keys of an existing table. Keys on several lines, and inline tables, come out wrong; the caller checks the result. */
export function setInTable(text: string, path: readonly string[], values: Readonly<Record<string, unknown>>): string {
  const lines = text.split('\n');
  const range = tableRange(lines, path);
  if (range === undefined) return text;
  const end = text.includes('\r\n') ? '\r' : '';
  for (const [key, value] of Object.entries(values).toReversed()) {
    const pattern = new RegExp(`^\\s*${key}\\s*=`);
    const found = lines.findIndex((line, at) => at > range.start && at < range.ownEnd && pattern.test(line));
    lines.splice(found === -1 ? range.start + 1 : found, found === -1 ? 0 : 1, lineOf([key, value]) + end);
  }
  return lines.join('\n');
}

/** Removes a table, the tables below it, and the empty line before it (at the beginning of the file, the one after it). */
export function removeTable(text: string, path: readonly string[]): string {
  const lines = text.split('\n');
  const range = tableRange(lines, path);
  if (range === undefined) return text;
  const isEmpty = (at: number): boolean => lines[at]?.trim() === '';
  const isLast = lines.slice(range.end).every((line) => line.trim() === '');
  const from = isEmpty(range.start - 1) && (isLast || isEmpty(range.end)) ? range.start - 1 : range.start;
  const to = range.start === 0 && isEmpty(range.end) ? range.end + 1 : range.end;
  lines.splice(from, to - from);
  return lines.join('\n');
}

/** Line numbers of the header, of the end of its own keys, and of the end of the tables below it. Comments before the next header belong to that one. */
function tableRange(
  written: readonly string[],
  path: readonly string[],
): { readonly start: number; readonly ownEnd: number; readonly end: number } | undefined {
  // `$` does not match before a carriage return.
  const lines = written.map((line) => line.trimEnd());
  const name = path.map((key) => `(?:${escaped(key)}|"${escaped(key)}"|'${escaped(key)}')`).join('\\s*\\.\\s*');
  const start = lines.findIndex((line) => new RegExp(`^\\s*\\[\\s*${name}\\s*\\]`).test(line));
  if (start === -1) return undefined;
  const header = /^\s*\[/;
  const below = new RegExp(`^\\s*\\[+\\s*${name}\\s*\\.`);
  const next = (from: number, ends: (line: string) => boolean): number => {
    const found = lines.findIndex((line, at) => at > from && ends(line));
    let end = found === -1 ? lines.length : found;
    while (end > from + 1 && /^\s*(?:#.*)?$/.test(lines[end - 1] ?? '')) end -= 1;
    return end;
  };
  return {
    start,
    ownEnd: next(start, (line) => header.test(line)),
    end: next(start, (line) => header.test(line) && !below.test(line)),
  };
}

function lineOf([key, value]: readonly [string, unknown]): string {
  return `${key} = ${Array.isArray(value) ? `[${value.map(stringText).join(', ')}]` : stringText(value)}`;
}

/** TOML has JSON's escapes, and also requires one for DEL. */
function stringText(value: unknown): string {
  return JSON.stringify(value).replaceAll('\u007f', '\\u007f');
}

function keyText(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : stringText(key);
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function eolOf(text: string): string {
  return text.includes('\r\n') ? '\r\n' : '\n';
}

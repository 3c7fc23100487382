import type { OpencodeApi } from '../../opencode/api.ts';
import type { FileNode } from '../../opencode/inspect-schema.ts';
import { RequestError } from '../../http/exchange.ts';
import { multiLine, quoteShort, singleLine } from '../../base/plain-text.ts';
import { type Answer, OperationError, quoteBlock, quoteName } from '../answer.ts';
import type { FileList, FileText } from './inspect-shapes.ts';
import { pathWithin } from './remote-path.ts';
import { type Call, connect, type Runtime } from '../runtime.ts';
import { findSession } from '../sessions/session-query.ts';

/** The instance's own directory, or that of one of its sessions. */
export interface FilesInput {
  readonly instance: string;
  readonly session_id?: string | undefined;
}

/** Of the names in one page. */
const LIST_CHARS = 3_000;
/** Longer lines are cut: one alone could fill every page. */
const MAX_LINE_CHARS = 1_000;

export interface Files {
  readonly name: string;
  readonly directory: string;
  readonly api: OpencodeApi;
}

export async function filesOf(runtime: Runtime, input: FilesInput, call: Call): Promise<Files> {
  const connected = await connect(runtime, input.instance, call);
  const { instance, api, directory } = connected;
  const session = input.session_id === undefined ? undefined : await findSession(connected, input.session_id);
  return {
    name: instance.name,
    directory: session?.directory ?? directory,
    api,
  };
}

/** One folder of an instance's directory. */
export async function listFiles(
  runtime: Runtime,
  input: FilesInput & { readonly path: string; readonly offset: number },
  call: Call,
): Promise<Answer<FileList>> {
  const files = await filesOf(runtime, input, call);
  const path = pathWithin(input.path, files.directory);
  const nodes = await listed(files, path);
  const shown = page(nodes, input.offset);
  const next = input.offset + shown.length;
  const names = shown.map(nameOf);
  const ignored = names.filter((_, index) => shown[index]?.ignored === true);
  const data: FileList = {
    instance: files.name,
    directory: singleLine(files.directory, 300),
    path: singleLine(path, 300),
    entries: names,
    ...(ignored.length > 0 && { ignored }),
    total: nodes.length,
    ...(next < nodes.length && { next_offset: next }),
  };
  return { data, text: renderList(data) };
}

async function listed({ api, directory, name }: Files, path: string): Promise<readonly FileNode[]> {
  return await api.listFiles(directory, path).catch((error: unknown) => {
    if (!isServerError(error)) throw error;
    throw new OperationError(
      `${quoteName(name)} cannot list ${describePath(path)}: no such folder, or a link that leads out of ${JSON.stringify(singleLine(directory, 200))}. Call list_files without path, or with the folder above.`,
    );
  });
}

function page(nodes: readonly FileNode[], offset: number): readonly FileNode[] {
  let chars = 0;
  const rest = nodes.slice(offset);
  const over = rest.findIndex(({ name }) => (chars += name.length + 4) > LIST_CHARS);
  return over === -1 ? rest : rest.slice(0, Math.max(1, over));
}

function nameOf({ name, type }: FileNode): string {
  return `${singleLine(name, 260)}${type === 'directory' ? '/' : ''}`;
}

function renderList(data: FileList): string {
  const where = `${quoteName(data.instance)}, ${describePath(data.path)} in ${quoteName(data.directory)}`;
  if (data.entries.length === 0) return `${where}: nothing${data.total > 0 ? ' from this offset on' : ''}`;
  const ignored = new Set(data.ignored);
  const lines = data.entries.map((name) => (ignored.has(name) ? `${name} (ignored)` : name));
  const more =
    data.next_offset === undefined
      ? []
      : [`(${data.total} in all; to go on: list_files again with offset ${data.next_offset})`];
  return [`${where}:`, quoteBlock(lines.join('\n')), ...more].join('\n');
}

/** A page of a text file, starting at a line. */
export async function readFile(
  runtime: Runtime,
  input: FilesInput & { readonly path: string; readonly line: number; readonly max_chars: number },
  call: Call,
): Promise<Answer<FileText>> {
  const files = await filesOf(runtime, input, call);
  const path = pathWithin(input.path, files.directory);
  if (path === '') throw new OperationError('path is a folder; list_files shows what it holds.');
  const { type, content, mimeType } = await contentOf(files, path);
  const head = { instance: files.name, path: singleLine(path, 300) };
  const title = `${quoteName(head.instance)}, ${quoteName(head.path)}`;
  if (type === 'binary') {
    const kind = quoteShort(mimeType ?? 'binary', 100);
    const binary = `${kind}, ${Buffer.from(content, 'base64').length} bytes; not text, so not shown`;
    return { data: { ...head, binary }, text: `${title}: ${binary}` };
  }
  if (content === '') {
    await assertExists(files, path);
    return { data: { ...head, lines: 0, text: '' }, text: `${title}: empty (0 lines)` };
  }
  const data = { ...head, ...linesFrom(content, input.line, input.max_chars) };
  return { data, text: renderText(data, title) };
}

async function contentOf(files: Files, path: string): ReturnType<OpencodeApi['readFile']> {
  return await files.api.readFile(files.directory, path).catch((error: unknown) => {
    if (error instanceof RequestError && error.kind === 'too-large')
      throw new OperationError(`${quoteName(files.name)}: ${describePath(path)} is too large to read.`);
    if (!isServerError(error)) throw error;
    throw new OperationError(
      `${quoteName(files.name)} cannot read ${describePath(path)}: it is a folder, a link that leads out of ${JSON.stringify(singleLine(files.directory, 200))}, or text that is not UTF-8. list_files shows what is there.`,
    );
  });
}

/** opencode returns a missing file as an empty one. */
async function assertExists(files: Files, path: string): Promise<void> {
  const folder = path.slice(0, Math.max(0, path.lastIndexOf('/')));
  const nodes = await files.api.listFiles(files.directory, folder).catch(() => []);
  if (nodes.some((node) => node.path === path)) return;
  throw new OperationError(
    `${quoteName(files.name)} has no file ${describePath(path)}, or it is an empty one behind a link. list_files with path ${JSON.stringify(singleLine(folder, 200))} shows what is there; search with names: true finds files by name.`,
  );
}

function linesFrom(content: string, first: number, maxChars: number): Omit<FileText, 'instance' | 'path'> {
  const all = content.split('\n');
  if (first > all.length) throw new OperationError(`line ${first} is past the end: the file has ${all.length} lines.`);
  const shown: string[] = [];
  let chars = 0;
  for (const line of all.slice(first - 1)) {
    const clean = cleanLine(line);
    chars += clean.length + 1;
    if (shown.length > 0 && chars > maxChars) break;
    shown.push(clean);
  }
  const next = first + shown.length;
  return {
    line: first,
    lines: all.length,
    text: shown.join('\n'),
    ...(next <= all.length && { next_line: next }),
  };
}

/** Exactly one line, so that line numbers hold. Tabs stay. */
function cleanLine(line: string): string {
  const whole = line.endsWith('\r') ? line.slice(0, -1) : line;
  return multiLine(whole, MAX_LINE_CHARS).replaceAll('\n', ' ');
}

function renderText(data: FileText, title: string): string {
  const { line = 1, lines = 0, text = '', next_line: next } = data;
  const last = next === undefined ? lines : next - 1;
  const more = next === undefined ? [] : [`(to go on: read_file again with line ${next})`];
  return [`${title}, lines ${line} to ${last} of ${lines}:`, quoteBlock(text), ...more].join('\n');
}

export function describePath(path: string): string {
  return path === '' ? 'the top folder' : JSON.stringify(singleLine(path, 300));
}

/** opencode answers 500 to invalid requests too. */
export function isServerError(error: unknown): boolean {
  return error instanceof RequestError && error.kind === 'status' && error.status === 500;
}

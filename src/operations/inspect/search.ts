import { singleLine } from '../../base/plain-text.ts';
import { type Answer, OperationError, quoteBlock, quoteName } from '../answer.ts';
import { type Files, type FilesInput, filesOf, isServerError } from './files.ts';
import type { SearchResult } from './inspect-shapes.ts';
import type { Call, Runtime } from '../runtime.ts';

/** opencode returns no more. */
const TEXT_MATCHES = 10;
const NAMES = 40;
const MAX_LINE_CHARS = 200;
const MAX_QUERY_CHARS = 1_000;

/** Lines that match a regular expression, or files whose path resembles the query. */
export async function search(
  runtime: Runtime,
  input: FilesInput & { readonly query: string; readonly names: boolean },
  call: Call,
): Promise<Answer<SearchResult>> {
  if (input.query.trim() === '') throw new OperationError('query is empty; list_files shows what there is.');
  if (input.query.length > MAX_QUERY_CHARS)
    throw new OperationError(`query is longer than ${MAX_QUERY_CHARS} characters.`);
  const files = await filesOf(runtime, input, call);
  const found = input.names ? await findNames(files, input.query) : await findText(files, input.query);
  const data: SearchResult = { instance: files.name, directory: singleLine(files.directory, 300), ...found };
  return { data, text: render(data, input.names) };
}

type Found = Pick<SearchResult, 'matches' | 'more'>;

async function findText({ api, directory, name }: Files, query: string): Promise<Found> {
  const lines = await api.findText(directory, query).catch((error: unknown) => {
    if (!isServerError(error)) throw error;
    throw new OperationError(
      `${quoteName(name)} could not search for ${JSON.stringify(singleLine(query, 100))}: either that is not a valid ripgrep regular expression (escape ( [ { . * + ? | \\ with \\), or it matches a line longer than 64 KB, or that machine has no ripgrep, which opencode downloads at the first search. names: true finds files by name without ripgrep.`,
    );
  });
  const matches = lines.slice(0, TEXT_MATCHES).map((match) => ({
    path: singleLine(match.path.text, 260),
    line: match.line_number,
    text: singleLine(match.lines.text.trim(), MAX_LINE_CHARS),
  }));
  return { matches, more: lines.length >= TEXT_MATCHES };
}

async function findNames({ api, directory }: Files, query: string): Promise<Found> {
  const paths = await api.findFiles(directory, query, NAMES + 1);
  const matches = paths.slice(0, NAMES).map((path) => ({ path: singleLine(path, 260) }));
  return { matches, more: paths.length > NAMES };
}

function render(data: SearchResult, names: boolean): string {
  const where = `${quoteName(data.instance)}, in ${quoteName(data.directory)}`;
  if (data.matches.length === 0) {
    return `${where}: nothing found${names ? '' : ' (upper and lower case differ unless the query begins with (?i); ignored files are left out)'}`;
  }
  const lines = data.matches.map(({ path, line, text }) => (line === undefined ? path : `${path}:${line}: ${text}`));
  const more = data.more
    ? [`(these are the first ${data.matches.length}; there may be more: narrow the query to see others)`]
    : [];
  return [`${where}:`, quoteBlock(lines.join('\n')), ...more].join('\n');
}

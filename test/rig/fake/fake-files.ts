import type { Answer } from '../answer.ts';
import type { FakeState } from './fake-state.ts';

/** The answer of a real opencode (1.18.10 and 1.18.33) to unusable paths and patterns. */
const REFUSED: Answer = {
  status: 500,
  body: { name: 'UnknownError', data: { message: 'Unexpected server error. Check server logs for details.' } },
};

const MAX_TEXT_MATCHES = 10;

export function listAnswer(path: string, { files, directory }: FakeState): Answer {
  const prefix = path === '' ? '' : `${path.replace(/\/$/, '')}/`;
  const names = [...files.keys()].filter((file) => file.startsWith(prefix)).map((file) => file.slice(prefix.length));
  if (names.length === 0 && path !== '') return REFUSED;
  const folders = new Set(names.filter((name) => name.includes('/')).map((name) => name.slice(0, name.indexOf('/'))));
  const node = (name: string, type: 'file' | 'directory'): object => ({
    name,
    path: `${prefix}${name}${type === 'directory' ? '/' : ''}`,
    absolute: `${directory}/${prefix}${name}`,
    type,
    ignored: name.startsWith('ignored'),
  });
  const own = names.filter((name) => !name.includes('/'));
  return {
    status: 200,
    body: [...[...folders].map((name) => node(name, 'directory')), ...own.map((name) => node(name, 'file'))],
  };
}

export function fileAnswer(path: string, { files }: FakeState): Answer {
  if ([...files.keys()].some((file) => file.startsWith(`${path}/`))) return REFUSED;
  const content = files.get(path) ?? '';
  if (!content.includes('\0')) return { status: 200, body: { type: 'text', content: content.trim() } };
  const binary = { type: 'binary', content: Buffer.from(content).toString('base64'), encoding: 'base64' };
  return { status: 200, body: { ...binary, mimeType: 'application/octet-stream' } };
}

export function findAnswer(pattern: string, { files }: FakeState): Answer {
  let expression: RegExp;
  try {
    expression = new RegExp(pattern, 'u');
  } catch {
    return REFUSED;
  }
  const matches = [...files].flatMap(([path, content]) =>
    content.split('\n').flatMap((line, index) =>
      expression.test(line)
        ? [
            {
              path: { text: path },
              lines: { text: `${line}\n` },
              line_number: index + 1,
              absolute_offset: 0,
              submatches: [],
            },
          ]
        : [],
    ),
  );
  return { status: 200, body: matches.slice(0, MAX_TEXT_MATCHES) };
}

export function findFileAnswer(query: URLSearchParams, { files }: FakeState): Answer {
  const found = [...files.keys()].filter((path) => path.includes(query.get('query') ?? ''));
  return { status: 200, body: found.slice(0, Number(query.get('limit') ?? 100)) };
}

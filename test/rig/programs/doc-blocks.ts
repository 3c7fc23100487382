import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../../..');

/** One fenced block of shell commands in a page. */
export interface DocBlock {
  /** The path from the root of the project. */
  readonly page: string;
  /** Words after the language, which GitHub does not show: `run`, or `run stays` for a program that stays open. */
  readonly marks: readonly string[];
  readonly commands: string;
}

/** Every page: the README first, then `docs`. */
export async function docPages(): Promise<readonly string[]> {
  const files = await readdir(join(root, 'docs'), { recursive: true });
  const pages = files.filter((file) => file.endsWith('.md')).map((file) => `docs/${file}`);
  return ['README.md', 'AGENTS.md', ...pages.toSorted()];
}

/** The blocks of shell commands in a page; a block in a list loses the indentation of the list. */
export async function docBlocks(page: string): Promise<readonly DocBlock[]> {
  const text = await readFile(join(root, page), 'utf8');
  const fences = text.matchAll(/^( *)```(\S*)(.*)\n([^]*?)^\1```$/gm);
  return [...fences]
    .filter(([, , language = '']) => ['sh', 'bash', 'shell', 'console'].includes(language))
    .map(([, indent = '', , marks = '', body = '']) => ({
      page,
      marks: marks.split(' ').filter(Boolean),
      commands: body.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    }));
}

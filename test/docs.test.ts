import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, it } from 'vitest';

import { docPages } from './rig/programs/doc-blocks.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const LINK = /\]\((?!https?:)([^)\s]+)\)/g;

async function pages(): Promise<ReadonlyMap<string, string>> {
  const names = await docPages();
  return new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(join(root, name), 'utf8')] as const)),
  );
}

/** The anchors that GitHub generates for the headings. */
function anchorsOf(page: string): ReadonlySet<string> {
  const headings = page.matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map(([, title = '']) =>
      title
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

it('every relative link in the docs leads to an existing file and heading', async () => {
  const all = await pages();
  const broken: string[] = [];
  for (const [name, page] of all) {
    for (const [, link = ''] of page.matchAll(LINK)) {
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? name : relative(root, join(root, dirname(name), path));
      const text = all.get(target) ?? (await readFile(join(root, target), 'utf8').catch(() => undefined));
      if (text === undefined || (anchor !== undefined && !anchorsOf(text).has(anchor))) broken.push(`${name}: ${link}`);
    }
  }
  expect(all.size).toBeGreaterThan(15);
  expect(broken).toEqual([]);
});

it('every page can be reached by links from the README', async () => {
  const all = await pages();
  const reachable = new Set(['README.md']);
  for (const name of reachable) {
    for (const [, link = ''] of (all.get(name) ?? '').matchAll(LINK)) {
      const target = relative(root, join(root, dirname(name), link.split('#')[0] ?? ''));
      if (all.has(target)) reachable.add(target);
    }
  }
  expect([...all.keys()].filter((name) => !reachable.has(name))).toEqual([]);
});

it('the README has at most 100 lines', async () => {
  const readme = (await pages()).get('README.md') ?? '';
  expect(readme.split('\n').length).toBeLessThanOrEqual(101);
});

it('the generated pages on tools and settings are up to date', () => {
  const check = ['--import', 'tsx', 'scripts/write-docs.ts', '--check'];
  expect(() => execFileSync(process.execPath, check, { cwd: root, encoding: 'utf8' })).not.toThrow();
});

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

import { startMcpChild } from './programs/mcp-child.ts';
import { mdnsSocketsOf } from './no-multicast.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Files that name the server but do not start it as a client does. */
const EXEMPT_FILES = new Set([
  'bench/bundle.ts',
  'bench/figures/sizes.ts',
  'bench/loaded-modules.ts',
  'scripts/build.mjs',
  'test/node/command.test.ts',
  'test/node/units.test.ts',
  'test/rig/no-multicast.test.ts',
  'test/doctor/program.test.ts',
  'test/setup/command.test.ts',
  'test/setup/edit.test.ts',
]);

async function sourceFilesIn(folder: string): Promise<string[]> {
  const entries = await readdir(join(ROOT, folder), { withFileTypes: true });
  const found = await Promise.all(
    entries
      .filter(({ name }) => name !== 'node_modules')
      .map(async (entry) => {
        const path = `${folder}/${entry.name}`;
        if (entry.isDirectory()) return sourceFilesIn(path);
        return /\.(?:ts|mjs)$/.test(entry.name) ? [path] : [];
      }),
  );
  return found.flat();
}

test('every file that starts a server keeps it off the LAN', async () => {
  const paths = (await Promise.all(['test', 'bench', 'scripts'].map(sourceFilesIn))).flat();
  const starters: { readonly path: string; readonly isSafe: boolean }[] = [];
  for (const path of paths) {
    const text = await readFile(join(ROOT, path), 'utf8');
    // The LAN and tailnet suites run in network namespaces.
    const isExempt = EXEMPT_FILES.has(path) || /^test\/(?:lan|tailnet)\//.test(path);
    if (isExempt || !/SERVER_SCRIPT|BUILT_SERVER|scripts\.server|opencode-mcp\.js/.test(text)) continue;
    starters.push({ path, isSafe: /NO_MULTICAST|--mdns-interfaces|startRawServer/.test(text) });
  }
  expect(starters.length).toBeGreaterThan(3);
  expect(starters.filter(({ isSafe }) => !isSafe)).toEqual([]);
});

test('a server of the rig has no mDNS socket after it has searched all sources', async () => {
  await using server = await startMcpChild();
  await server.call('refresh_instances');
  expect(await mdnsSocketsOf(server.pid)).toBe(0);
});

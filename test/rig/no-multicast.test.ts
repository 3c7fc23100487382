import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

import { startMcpChild } from './mcp-child.ts';
import { mdnsSocketsOf } from './no-multicast.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Files that name the server and start none with the sources of a client. */
const START_NONE = new Set([
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

async function sources(folder: string): Promise<string[]> {
  const entries = await readdir(join(ROOT, folder), { withFileTypes: true });
  const found = await Promise.all(
    entries
      .filter(({ name }) => name !== 'node_modules')
      .map(async (entry) => {
        const path = `${folder}/${entry.name}`;
        if (entry.isDirectory()) return sources(path);
        return /\.(?:ts|mjs)$/.test(entry.name) ? [path] : [];
      }),
  );
  return found.flat();
}

test('whoever starts a server here keeps it from the LAN', async () => {
  const paths = (await Promise.all(['test', 'bench', 'scripts'].map(sources))).flat();
  const starters: { readonly path: string; readonly isKept: boolean }[] = [];
  for (const path of paths) {
    const text = await readFile(join(ROOT, path), 'utf8');
    // Those of the LAN and of the tailnet are in namespaces of their own.
    const isApart = START_NONE.has(path) || /^test\/(?:lan|tailnet)\//.test(path);
    if (isApart || !/SERVER_SCRIPT|BUILT_SERVER|scripts\.server|opencode-mcp\.js/.test(text)) continue;
    starters.push({ path, isKept: /NO_MULTICAST|--mdns-interfaces/.test(text) });
  }
  expect(starters.length).toBeGreaterThan(3);
  expect(starters.filter(({ isKept }) => !isKept)).toEqual([]);
});

test('a server of the rig has no socket of mDNS after it has looked everywhere', async () => {
  await using server = await startMcpChild();
  await server.call('refresh_instances');
  expect(await mdnsSocketsOf(server.pid)).toBe(0);
});

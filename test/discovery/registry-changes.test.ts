import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { WatchedFolders } from '../../src/discovery/folder/watched-folders.ts';
import { SourceUnavailableError } from '../../src/discovery/source.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';
import { needRoot, run } from './as-root.ts';
import { keysOf, registrySource } from './registry-stage.ts';

const never = new AbortController().signal;

describe('hints of the registry source', () => {
  let top: TempDir;
  let directory: string;
  let source: WatchedFolders;
  let hints: AsyncIterator<void>;
  beforeEach(() => {
    top = tempDir('hints');
    directory = join(top.path, 'up', 'reg');
    source = registrySource(directory, { explicit: false, own: join(top.path, 'own') });
    hints = source.changes(never)[Symbol.asyncIterator]();
  });
  afterEach(async () => {
    await source.close();
    await top.close();
  });

  /** Scans after each hint until a scan finds `keys`. */
  async function scanUntil(keys: readonly string[] | 'unavailable'): Promise<void> {
    let found: readonly string[] | 'unavailable' | undefined;
    const scanAfterHints = async (): Promise<void> => {
      do {
        await hints.next();
        found = await source.scan(never).then(keysOf, (error: unknown) => {
          if (error instanceof SourceUnavailableError) return 'unavailable';
          throw error;
        });
      } while (JSON.stringify(found) !== JSON.stringify(keys));
    };
    await within(
      scanAfterHints(),
      () => `hints that lead to ${JSON.stringify(keys)}; last found ${JSON.stringify(found)}`,
    );
  }

  it("follow the default directory and this user's own as they appear, change, and disappear", async () => {
    await scanUntil('unavailable');
    const registry = await openRegistry(directory);
    await scanUntil([]);
    await registry.add({ name: 'a', port: 4096 });
    await scanUntil(['a.json']);
    const own = await openRegistry(join(top.path, 'own'));
    await own.add({ name: 'b', port: 4097 });
    await scanUntil(['a.json', 'own/b.json']);
    rmSync(directory, { recursive: true });
    await scanUntil(['own/b.json']);
    await own.remove('b');
    await scanUntil([]);
  });

  it('continue after a scan finds that the directory was moved without an event', async () => {
    await openRegistry(directory);
    await within(hints.next(), 'the first hint');
    renameSync(join(top.path, 'up'), join(top.path, 'down'));
    const registry = await openRegistry(directory);
    await source.scan(never);
    await within(hints.next(), 'the hint of the new watch');
    await registry.add({ name: 'a', port: 4096 });
    await scanUntil(['a.json']);
  });

  it('are missing, with one log line, if the kernel allows no watch', async (context) => {
    needRoot(context);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const child = fileURLToPath(new URL('./watch-registry.ts', import.meta.url));
    // The limit applies to a separate user namespace only.
    const script = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$0" --import tsx "$1" "$2"';
    const output = run('unshare', '-U', '-r', 'sh', '-c', script, process.execPath, child, directory);
    expect(JSON.parse(output)).toEqual({
      log: [
        ['info', 'cannot watch the directory; changes are found by polling', { path: directory, reason: 'ENOSPC' }],
      ],
      candidates: 0,
      done: true,
    });
  });
});

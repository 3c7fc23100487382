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
    directory = join(top.path, 'reg');
    source = registrySource(directory);
    hints = source.changes(never)[Symbol.asyncIterator]();
  });
  afterEach(async () => {
    await source.close();
    await top.close();
  });

  /** Scans only after hints, until it finds `keys`. */
  async function see(keys: readonly string[] | 'unavailable'): Promise<void> {
    let seen: readonly string[] | 'unavailable' | undefined;
    const look = async (): Promise<void> => {
      do {
        await hints.next();
        seen = await source.scan(never).then(keysOf, (error: unknown) => {
          if (error instanceof SourceUnavailableError) return 'unavailable';
          throw error;
        });
      } while (JSON.stringify(seen) !== JSON.stringify(keys));
    };
    await within(look(), () => `hints that lead to ${JSON.stringify(keys)}; last seen ${JSON.stringify(seen)}`);
    expect(seen).toEqual(keys);
  }

  it('follow a directory that appears, is replaced, removed and recreated', async () => {
    await see('unavailable');
    const first = await openRegistry(directory);
    await see([]);
    await first.add({ name: 'a', port: 4096 });
    await see(['a.json']);

    const second = await openRegistry(`${directory}.new`);
    await second.add({ name: 'b', port: 4097 });
    renameSync(directory, `${directory}.old`);
    renameSync(`${directory}.new`, directory);
    await see(['b.json']);
    await first.add({ name: 'c', port: 4098 });
    await see(['b.json', 'c.json']);

    rmSync(directory, { recursive: true });
    await see('unavailable');
    mkdirSync(directory, 0o700);
    await see([]);
    await first.add({ name: 'd', port: 4099 });
    await see(['d.json']);
    await first.remove('d');
    await see([]);
  });

  it("also come from this user's own directory", async () => {
    await source.close();
    source = registrySource(directory, { explicit: false, own: join(top.path, 'own') });
    hints = source.changes(never)[Symbol.asyncIterator]();
    await see('unavailable');
    const own = await openRegistry(join(top.path, 'own'));
    await own.add({ name: 'a', port: 4096 });
    await see(['own/a.json']);
  });

  it('come again after a scan finds that the directory was moved without an event', async () => {
    const nested = join(top.path, 'up', 'reg');
    await openRegistry(join(top.path, 'up')).then(() => openRegistry(nested));
    const moved = registrySource(nested);
    const its = moved.changes(never)[Symbol.asyncIterator]();
    await within(its.next(), 'the first hint');
    renameSync(join(top.path, 'up'), join(top.path, 'down'));
    await openRegistry(join(top.path, 'up'));
    const registry = await openRegistry(nested);
    await moved.scan(never);
    await within(its.next(), 'the hint of the new watch');
    const hint = within(its.next(), 'a hint after a registration');
    await registry.add({ name: 'a', port: 4096 });
    expect((await hint).done).toBe(false);
    await moved.close();
  });

  it('are missing, with one log line, if the kernel allows no watch', async (context) => {
    needRoot(context);
    mkdirSync(directory, 0o700);
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

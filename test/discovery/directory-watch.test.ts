import {
  type FSWatcher,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  rmdirSync,
  statSync,
  symlinkSync,
  watch as watchFiles,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { DirectoryWatch } from '../../src/discovery/folder/directory-watch.ts';
import { type FileSystem, nodeFileSystem } from '../../src/discovery/folder/file-system.ts';
import { isRegistrationName } from '../../src/discovery/registry/registration-reader.ts';
import { tempDir } from '../rig/temp.ts';
import { deferred, until, within } from '../rig/wait.ts';
import { fileSystem, systemError } from './registry-stage.ts';

describe('DirectoryWatch', () => {
  /** The watched directory is `<top>/up/reg`. */
  let top: string;
  let up: string;
  let directory: string;
  let changes = 0;
  /** Every watch that was started, with the inode of its folder. */
  let startedWatches: { readonly watcher: FSWatcher; readonly inode: number }[] = [];
  /** Calls of `stat` that have not settled. */
  let pendingStats = 0;
  let logged: string[] = [];

  beforeEach(() => {
    const temp = tempDir('watch');
    onTestFinished(() => temp.close());
    top = temp.path;
    up = join(top, 'up');
    directory = join(up, 'reg');
    changes = 0;
    startedWatches = [];
    logged = [];
  });

  function start({
    stat = nodeFileSystem.stat,
    watch = nodeFileSystem.watch,
    path = directory,
  }: Partial<FileSystem & { readonly path: string }> = {}): DirectoryWatch {
    const directoryWatch = new DirectoryWatch({
      path,
      isRelevant: isRegistrationName,
      onChange: () => (changes += 1),
      fs: fileSystem({
        watch: (folder, onEvent) => {
          const watcher = watch(folder, onEvent);
          startedWatches.push({ watcher, inode: statSync(folder).ino });
          return watcher;
        },
        stat: (folder) => {
          pendingStats += 1;
          return stat(folder).finally(() => (pendingStats -= 1));
        },
      }),
      logger: { log: (level, message, fields) => logged.push(`${level} ${message} ${JSON.stringify(fields)}`) },
    });
    onTestFinished(() => directoryWatch.close());
    return directoryWatch;
  }

  const watchIsOn = (path: string): Promise<unknown> =>
    until(
      `the watch to be on ${path}`,
      () => startedWatches.at(-1)?.inode === statSync(path, { throwIfNoEntry: false })?.ino,
    );

  /** Resolves when all events so far have been delivered and handled. */
  async function allEventsHandled(): Promise<void> {
    // All watches of a process share one inotify queue, so this event comes last.
    const sentinel = mkdtempSync(join(top, 'sentinel-'));
    const passed = deferred<void>();
    const watcher = watchFiles(sentinel, () => passed.resolve());
    writeFileSync(join(sentinel, 'x'), '');
    await within(passed.promise, 'the sentinel');
    watcher.close();
    await until('all checks to end', () => pendingStats === 0);
  }

  /** Runs `action` and waits for a notification that only `action` can have caused. */
  async function expectChange(action: () => unknown): Promise<void> {
    await allEventsHandled();
    const before = changes;
    action();
    await until('a notification', () => changes > before, 5000);
  }

  async function expectNoChange(action: () => unknown): Promise<void> {
    await allEventsHandled();
    const before = changes;
    action();
    await allEventsHandled();
    expect(changes).toBe(before);
  }

  const createDirectory = (): unknown => mkdirSync(directory, { recursive: true });

  function writeRegistration(): void {
    writeFileSync(join(directory, '.a.json'), '{"port":4096}');
    renameSync(join(directory, '.a.json'), join(directory, 'a.json'));
  }

  async function startOn(existing: string): Promise<DirectoryWatch> {
    mkdirSync(existing, { recursive: true });
    const watch = start();
    await watchIsOn(existing);
    return watch;
  }

  async function expectRegistrationNoticed(): Promise<void> {
    await watchIsOn(directory);
    await expectChange(writeRegistration);
  }

  /** Starts with `existing` as the nearest existing folder. A step is an action that must notify, and the folder watched after it. */
  async function expectMoves(existing: string, ...steps: readonly (readonly [() => unknown, string])[]): Promise<void> {
    await startOn(existing);
    for (const [action, watched] of steps) {
      await expectChange(action);
      await watchIsOn(watched);
    }
    await expectRegistrationNoticed();
  }

  it('notifies when it starts, and when a registration is added, replaced or removed', async () => {
    createDirectory();
    start();
    await until('the first notification', () => changes === 1);
    await expectChange(writeRegistration);
    await expectChange(writeRegistration);
    await expectChange(() => rmSync(join(directory, 'a.json')));
  });

  it('ignores temporary names and other files', async () => {
    await startOn(directory);
    await expectNoChange(() => {
      writeFileSync(join(directory, '.a.json'), '');
      writeFileSync(join(directory, 'notes.txt'), '');
      mkdirSync(join(directory, '.credentials'));
    });
  });

  it('ignores other changes in the folder above a missing directory', async () => {
    await startOn(up);
    await expectNoChange(() => {
      writeFileSync(join(up, 'other'), '');
      mkdirSync(join(up, 'registry'));
    });
  });

  it('follows a directory that is created after its parent', () =>
    expectMoves(top, [() => mkdirSync(up), up], [createDirectory, directory]));

  it('follows a directory that is created together with its parent', () =>
    expectMoves(top, [createDirectory, directory]));

  it('follows a directory that is created after its parent was removed', () =>
    expectMoves(up, [() => rmdirSync(up), top], [createDirectory, directory]));

  it('follows a directory that is removed and recreated', () =>
    expectMoves(directory, [() => rmdirSync(directory), up], [createDirectory, directory]));

  it('follows a directory that is removed and recreated together with its parent', () =>
    expectMoves(directory, [() => rmSync(up, { recursive: true }), top], [createDirectory, directory]));

  it('follows a directory that is renamed and replaced, and then replaced by renaming another over it', async () => {
    const [old, next] = ['old', 'next'].map((name) => join(up, name));
    const replace = (): void => {
      renameSync(directory, old!);
      mkdirSync(next!);
      renameSync(next!, directory);
    };
    const renameOver = (): void => {
      mkdirSync(next!);
      renameSync(next!, directory);
    };
    await expectMoves(directory, [replace, directory], [renameOver, directory]);
  });

  it('follows a directory that is recreated between two checks, even with the same inode number', async () => {
    createDirectory();
    // Like a file system without birth times that reuses inode numbers.
    start({ stat: async (path) => Object.assign(await nodeFileSystem.stat(path), { ino: 1n, birthtimeNs: 0n }) });
    await until('the first notification', () => changes === 1);
    await allEventsHandled();
    rmdirSync(directory);
    mkdirSync(directory);
    await until('a new watch', () => startedWatches.length > 1, 5000);
    await expectChange(writeRegistration);
  });

  it('finds a moved parent and a changed link on verify, since they cause no event', async () => {
    const down = join(top, 'down');
    const watch = await startOn(directory);
    await expectChange(() => {
      renameSync(up, down);
      createDirectory();
      watch.verify();
    });
    await watchIsOn(directory);
    await watch.close();

    const link = join(top, 'link');
    symlinkSync(join(down, 'reg'), link);
    const linked = start({ path: link });
    await watchIsOn(join(down, 'reg'));
    await expectChange(() => {
      rmSync(link);
      symlinkSync(directory, link);
      linked.verify();
    });
    await watchIsOn(directory);
  });

  it('distinguishes a directory from an earlier one with the same inode number', async () => {
    createDirectory();
    const watch = start({ stat: async (path) => Object.assign(await nodeFileSystem.stat(path), { ino: 1n }) });
    await watchIsOn(directory);
    renameSync(up, join(top, 'down'));
    createDirectory();
    watch.verify();
    await watchIsOn(directory);
  });

  it('does not miss a directory that appears while the watch starts', async () => {
    mkdirSync(up);
    start({
      watch: (folder, onEvent) => {
        // Created after the check and before the watch: there is no event.
        createDirectory();
        return nodeFileSystem.watch(folder, onEvent);
      },
    });
    await expectRegistrationNoticed();
  });

  it('logs once that it cannot watch, and tries again on verify', async () => {
    createDirectory();
    let refusals = 2;
    const watch = start({
      watch: (folder, onEvent) => {
        if (refusals-- > 0) throw systemError('ENOSPC');
        return nodeFileSystem.watch(folder, onEvent);
      },
    });
    await until('the first refusal', () => refusals === 1);
    await allEventsHandled();
    expect(changes).toBe(0);
    watch.verify();
    await until('the second refusal', () => refusals === 0);
    await allEventsHandled();
    expect(logged).toEqual([
      `info cannot watch the directory; changes are found by polling ${JSON.stringify({ path: directory, reason: 'ENOSPC' })}`,
    ]);
    watch.verify();
    await expectRegistrationNoticed();
  });

  it('survives the loss of its watch', async () => {
    const watch = await startOn(directory);
    await until('the first notification', () => changes === 1);
    startedWatches[0]?.watcher.emit('error', systemError('EPERM'));
    expect(logged).toHaveLength(1);
    await expectChange(() => watch.verify());
    expect(startedWatches).toHaveLength(2);
  });

  it('starts no watch if it is closed during a check', async () => {
    createDirectory();
    const statGate = deferred<void>();
    const watch = start({ stat: (path) => statGate.promise.then(() => nodeFileSystem.stat(path)) });
    const closing = watch.close();
    statGate.resolve();
    await closing;
    watch.verify();
    await allEventsHandled();
    expect(startedWatches).toEqual([]);
    expect(changes).toBe(0);
  });
});

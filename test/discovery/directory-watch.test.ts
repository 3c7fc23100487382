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
  /** Every watch that began, with the inode of its folder. */
  let armed: { readonly watcher: FSWatcher; readonly inode: number }[] = [];
  /** Calls of `stat` under way. */
  let checks = 0;
  let logged: string[] = [];

  beforeEach(() => {
    const temp = tempDir('watch');
    onTestFinished(() => temp.close());
    top = temp.path;
    up = join(top, 'up');
    directory = join(up, 'reg');
    changes = 0;
    armed = [];
    logged = [];
  });

  function start({
    stat = nodeFileSystem.stat,
    watch = nodeFileSystem.watch,
    path = directory,
  }: Partial<FileSystem & { readonly path: string }> = {}): DirectoryWatch {
    const started = new DirectoryWatch({
      path,
      isRelevant: isRegistrationName,
      onChange: () => (changes += 1),
      fs: fileSystem({
        watch: (folder, onEvent) => {
          const watcher = watch(folder, onEvent);
          armed.push({ watcher, inode: statSync(folder).ino });
          return watcher;
        },
        stat: (folder) => {
          checks += 1;
          return stat(folder).finally(() => (checks -= 1));
        },
      }),
      logger: { log: (level, message, fields) => logged.push(`${level} ${message} ${JSON.stringify(fields)}`) },
    });
    onTestFinished(() => started.close());
    return started;
  }

  const isArmedOn = (path: string): Promise<unknown> =>
    until(`the watch to be on ${path}`, () => armed.at(-1)?.inode === statSync(path, { throwIfNoEntry: false })?.ino);

  /** Resolves when all events so far have been delivered and handled. */
  async function quiet(): Promise<void> {
    // All watches of a process share one inotify queue, so this event comes last.
    const sentinel = mkdtempSync(join(top, 'sentinel-'));
    const passed = deferred<void>();
    const watcher = watchFiles(sentinel, () => passed.resolve());
    writeFileSync(join(sentinel, 'x'), '');
    await within(passed.promise, 'the sentinel');
    watcher.close();
    await until('the watch to have settled', () => checks === 0);
  }

  /** Runs `act` and waits for a notification that it, and nothing before it, caused. */
  async function expectChange(act: () => unknown): Promise<void> {
    await quiet();
    const before = changes;
    act();
    await until('a notification', () => changes > before, 5000);
  }

  async function expectNoChange(act: () => unknown): Promise<void> {
    await quiet();
    const before = changes;
    act();
    await quiet();
    expect(changes).toBe(before);
  }

  const create = (): unknown => mkdirSync(directory, { recursive: true });

  function register(): void {
    writeFileSync(join(directory, '.a.json'), '{"port":4096}');
    renameSync(join(directory, '.a.json'), join(directory, 'a.json'));
  }

  async function startOn(existing: string): Promise<DirectoryWatch> {
    mkdirSync(existing, { recursive: true });
    const watch = start();
    await isArmedOn(existing);
    return watch;
  }

  async function expectFollowed(): Promise<void> {
    await isArmedOn(directory);
    await expectChange(register);
  }

  /** Begins while `existing` is the nearest folder that exists. Each step leads to a notification and to a watch on its second part. */
  async function expectMoves(existing: string, ...steps: readonly (readonly [() => unknown, string])[]): Promise<void> {
    await startOn(existing);
    for (const [act, watched] of steps) {
      await expectChange(act);
      await isArmedOn(watched);
    }
    await expectFollowed();
  }

  it('notifies at its start, and when a registration is added, replaced or removed', async () => {
    create();
    start();
    await until('the first notification', () => changes === 1);
    await expectChange(register);
    await expectChange(register);
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
    expectMoves(top, [() => mkdirSync(up), up], [create, directory]));

  it('follows a directory that is created together with its parent', () => expectMoves(top, [create, directory]));

  it('follows a directory that is created after its parent was removed', () =>
    expectMoves(up, [() => rmdirSync(up), top], [create, directory]));

  it('follows a directory that is removed and recreated', () =>
    expectMoves(directory, [() => rmdirSync(directory), up], [create, directory]));

  it('follows a directory that is removed and recreated together with its parent', () =>
    expectMoves(directory, [() => rmSync(up, { recursive: true }), top], [create, directory]));

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
    create();
    // Like a file system without birth times that reuses inode numbers.
    start({ stat: async (path) => Object.assign(await nodeFileSystem.stat(path), { ino: 1n, birthtimeNs: 0n }) });
    await until('the first notification', () => changes === 1);
    await quiet();
    rmdirSync(directory);
    mkdirSync(directory);
    await until('a new watch', () => armed.length > 1, 5000);
    await expectChange(register);
  });

  it('finds on verify what causes no event: a moved parent, a changed link', async () => {
    const down = join(top, 'down');
    const watch = await startOn(directory);
    await expectChange(() => {
      renameSync(up, down);
      create();
      watch.verify();
    });
    await isArmedOn(directory);
    await watch.close();

    const link = join(top, 'link');
    symlinkSync(join(down, 'reg'), link);
    const linked = start({ path: link });
    await isArmedOn(join(down, 'reg'));
    await expectChange(() => {
      rmSync(link);
      symlinkSync(directory, link);
      linked.verify();
    });
    await isArmedOn(directory);
  });

  it('distinguishes a directory from an earlier one with the same inode number', async () => {
    create();
    const watch = start({ stat: async (path) => Object.assign(await nodeFileSystem.stat(path), { ino: 1n }) });
    await isArmedOn(directory);
    renameSync(up, join(top, 'down'));
    create();
    watch.verify();
    await isArmedOn(directory);
  });

  it('does not miss a directory that appears while the watch begins', async () => {
    mkdirSync(up);
    start({
      watch: (folder, onEvent) => {
        // Created after the check and before the watch: there is no event.
        create();
        return nodeFileSystem.watch(folder, onEvent);
      },
    });
    await expectFollowed();
  });

  it('logs once that it cannot watch, and tries again on verify', async () => {
    create();
    let refusals = 2;
    const watch = start({
      watch: (folder, onEvent) => {
        if (refusals-- > 0) throw systemError('ENOSPC');
        return nodeFileSystem.watch(folder, onEvent);
      },
    });
    await until('the first refusal', () => refusals === 1);
    await quiet();
    expect(changes).toBe(0);
    watch.verify();
    await until('the second refusal', () => refusals === 0);
    await quiet();
    expect(logged).toEqual([
      `info cannot watch the directory; changes are found by polling ${JSON.stringify({ path: directory, reason: 'ENOSPC' })}`,
    ]);
    watch.verify();
    await expectFollowed();
  });

  it('survives the loss of its watch', async () => {
    const watch = await startOn(directory);
    await until('the first notification', () => changes === 1);
    armed[0]?.watcher.emit('error', systemError('EPERM'));
    expect(logged).toHaveLength(1);
    await expectChange(() => watch.verify());
    expect(armed).toHaveLength(2);
  });

  it('leaves nothing open if it is closed during a check', async () => {
    create();
    const hold = deferred<void>();
    const watch = start({ stat: (path) => hold.promise.then(() => nodeFileSystem.stat(path)) });
    const closing = watch.close();
    hold.resolve();
    await closing;
    watch.verify();
    await quiet();
    expect(armed).toEqual([]);
    expect(changes).toBe(0);
  });
});

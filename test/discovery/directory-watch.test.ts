import {
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
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DirectoryWatch } from '../../src/discovery/folder/directory-watch.ts';
import { nodeFileSystem, type FileSystem } from '../../src/discovery/folder/file-system.ts';
import { isRegistrationName } from '../../src/discovery/registry/registration-reader.ts';
import type { Logger } from '../../src/base/log.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { deferred, until, within } from '../rig/wait.ts';
import { fileSystem, systemError } from './registry-stage.ts';

describe('DirectoryWatch', () => {
  let top: TempDir;
  let directory: string;
  const started: DirectoryWatch[] = [];
  let changes = 0;
  /** The inode of each watched folder, latest last. */
  let armed: number[] = [];
  let looking = 0;
  const logged: string[] = [];
  const logger: Logger = {
    log: (level, message, fields) => logged.push(`${level} ${message} ${JSON.stringify(fields)}`),
  };

  beforeEach(() => {
    top = tempDir('watch');
    directory = join(top.path, 'up', 'reg');
    changes = 0;
    armed = [];
    logged.length = 0;
  });
  afterEach(async () => {
    for (const watch of started.splice(0)) await watch.close();
    await top.close();
  });

  function start(changed: Partial<FileSystem> = {}, path = directory): DirectoryWatch {
    const fs = fileSystem({
      watch: (folder, onEvent) => {
        const watcher = nodeFileSystem.watch(folder, onEvent);
        armed.push(statSync(folder).ino);
        return watcher;
      },
      ...changed,
    });
    const counted: FileSystem['stat'] = async (folder) => {
      looking += 1;
      try {
        return await fs.stat(folder);
      } finally {
        looking -= 1;
      }
    };
    const watch = new DirectoryWatch({
      path,
      isRelevant: isRegistrationName,
      onChange: () => (changes += 1),
      fs: { ...fs, stat: counted },
      logger,
    });
    started.push(watch);
    return watch;
  }

  const isArmedOn = (path: string): Promise<unknown> =>
    until(`the watch to be on ${path}`, () => armed.at(-1) === statSync(path, { throwIfNoEntry: false })?.ino);

  /** Resolves when all events so far have been delivered and handled. */
  async function quiet(): Promise<void> {
    // All watches of a process share one inotify queue, so this event comes last.
    const sentinel = mkdtempSync(join(top.path, 'sentinel-'));
    const passed = deferred<void>();
    const watcher = watchFiles(sentinel, () => passed.resolve());
    writeFileSync(join(sentinel, 'x'), '');
    await within(passed.promise, 'the sentinel');
    watcher.close();
    await until('the watch to have settled', () => looking === 0);
  }

  /** Runs `act` and waits for a notification that it, and nothing before it, caused. */
  async function expectChange(what: string, act: () => void): Promise<void> {
    await quiet();
    const before = changes;
    act();
    await until(`a notification after ${what}`, () => changes > before, 5000);
    expect(changes).toBeGreaterThan(before);
  }

  function register(name: string): void {
    writeFileSync(join(directory, `.${name}`), '{"port":4096}');
    renameSync(join(directory, `.${name}`), join(directory, name));
  }

  async function startOnDirectory(): Promise<DirectoryWatch> {
    mkdirSync(directory, { recursive: true });
    const watch = start();
    await isArmedOn(directory);
    return watch;
  }

  async function expectFollowed(): Promise<void> {
    await isArmedOn(directory);
    await expectChange('a registration', () => register('a.json'));
  }

  it('notifies at its start, and of a registration that is added, changed or removed', async () => {
    mkdirSync(directory, { recursive: true });
    start();
    await until('the first notification', () => changes === 1);
    await expectChange('a registration', () => register('a.json'));
    await expectChange('another in its place', () => register('a.json'));
    await expectChange('its removal', () => rmSync(join(directory, 'a.json')));
  });

  it('ignores temporary names and other files', async () => {
    await startOnDirectory();
    await quiet();
    const before = changes;
    writeFileSync(join(directory, '.a.json'), '');
    writeFileSync(join(directory, 'notes.txt'), '');
    mkdirSync(join(directory, '.credentials'));
    await quiet();
    expect(changes).toBe(before);
  });

  it('waits for a directory whose parents are missing too', async () => {
    start();
    await isArmedOn(top.path);
    mkdirSync(join(top.path, 'up'));
    await isArmedOn(join(top.path, 'up'));
    await expectChange('the directory', () => mkdirSync(directory));
    await expectFollowed();
  });

  it('waits for a directory that is created together with its parents', async () => {
    start();
    await isArmedOn(top.path);
    await expectChange('the directory', () => mkdirSync(directory, { recursive: true }));
    await expectFollowed();
  });

  it('ignores other changes in the folder it watches meanwhile', async () => {
    mkdirSync(join(top.path, 'up'));
    start();
    await isArmedOn(join(top.path, 'up'));
    await quiet();
    const before = changes;
    writeFileSync(join(top.path, 'up', 'other'), '');
    mkdirSync(join(top.path, 'up', 'registry'));
    await quiet();
    expect(changes).toBe(before);
  });

  it('moves up if the folder it watches meanwhile is removed', async () => {
    mkdirSync(join(top.path, 'up'));
    start();
    await isArmedOn(join(top.path, 'up'));
    rmdirSync(join(top.path, 'up'));
    await isArmedOn(top.path);
    await expectChange('the directory', () => mkdirSync(directory, { recursive: true }));
    await isArmedOn(directory);
  });

  it('follows a directory that is replaced by rename', async () => {
    await startOnDirectory();
    await expectChange('the replacement', () => {
      mkdirSync(`${directory}.new`);
      renameSync(directory, `${directory}.old`);
      renameSync(`${directory}.new`, directory);
    });
    await expectFollowed();
  });

  it('follows if another directory is renamed over it', async () => {
    mkdirSync(directory, { recursive: true });
    mkdirSync(`${directory}.new`);
    start();
    await isArmedOn(directory);
    await expectChange('the replacement', () => renameSync(`${directory}.new`, directory));
    await expectFollowed();
  });

  it('follows a directory that is removed and recreated', async () => {
    await startOnDirectory();
    await expectChange('its removal', () => rmdirSync(directory));
    await isArmedOn(join(top.path, 'up'));
    await expectChange('its return', () => mkdirSync(directory));
    await expectFollowed();
  });

  it('follows a directory that is recreated between two checks, even with the same inode number', async () => {
    mkdirSync(directory, { recursive: true });
    // Like a file system without birth times that reuses inode numbers.
    start({ stat: async (path) => Object.assign(await nodeFileSystem.stat(path), { ino: 1n, birthtimeNs: 0n }) });
    await until('the first notification', () => changes === 1);
    await quiet();
    const before = armed.length;
    rmdirSync(directory);
    mkdirSync(directory);
    await until('a new watch', () => armed.length > before, 5000);
    await expectChange('a registration', () => register('a.json'));
  });

  it('follows if the directory is removed together with its parents', async () => {
    await startOnDirectory();
    await expectChange('the removal', () => rmSync(join(top.path, 'up'), { recursive: true }));
    await isArmedOn(top.path);
    await expectChange('the return', () => mkdirSync(directory, { recursive: true }));
    await isArmedOn(directory);
  });

  it('verify finds changes without an event: a moved parent, a changed link', async () => {
    const watch = await startOnDirectory();
    await expectChange('the move', () => {
      renameSync(join(top.path, 'up'), join(top.path, 'down'));
      mkdirSync(directory, { recursive: true });
      watch.verify();
    });
    await isArmedOn(directory);
    await watch.close();

    const link = join(top.path, 'link');
    symlinkSync(join(top.path, 'down', 'reg'), link);
    const linked = start({}, link);
    await isArmedOn(join(top.path, 'down', 'reg'));
    await expectChange('the turn', () => {
      rmSync(link);
      symlinkSync(directory, link);
      linked.verify();
    });
    await isArmedOn(directory);
  });

  it('distinguishes a directory from an earlier one with the same inode number', async () => {
    mkdirSync(directory, { recursive: true });
    const watch = start({ stat: async (path) => Object.assign(await nodeFileSystem.stat(path), { ino: 1n }) });
    await isArmedOn(directory);
    renameSync(join(top.path, 'up'), join(top.path, 'down'));
    mkdirSync(directory, { recursive: true });
    watch.verify();
    await isArmedOn(directory);
  });

  it('does not miss a directory that appears while the watch begins', async () => {
    mkdirSync(join(top.path, 'up'));
    start({
      watch: (folder, onEvent) => {
        // Created after the check and before the watch: there is no event.
        mkdirSync(directory, { recursive: true });
        armed.push(statSync(folder).ino);
        return nodeFileSystem.watch(folder, onEvent);
      },
    });
    await expectFollowed();
  });

  it.each(['ENOSPC', 'EMFILE', 'EACCES'])(
    'logs once that it cannot watch (%s), and tries again on verify',
    async (code) => {
      mkdirSync(directory, { recursive: true });
      let refusals = 2;
      const watch = start({
        watch: (folder, onEvent) => {
          if (refusals-- > 0) throw systemError(code);
          armed.push(statSync(folder).ino);
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
        `info cannot watch the directory; changes are found by polling ${JSON.stringify({ path: directory, reason: code })}`,
      ]);
      watch.verify();
      await isArmedOn(directory);
      await expectChange('a registration', () => register('a.json'));
    },
  );

  it('survives the loss of its watch', async () => {
    mkdirSync(directory, { recursive: true });
    const watchers: ReturnType<FileSystem['watch']>[] = [];
    const watch = start({
      watch: (folder, onEvent) => {
        const watcher = nodeFileSystem.watch(folder, onEvent);
        watchers.push(watcher);
        return watcher;
      },
    });
    await until('the first notification', () => changes === 1);
    watchers[0]?.emit('error', systemError('EPERM'));
    expect(logged).toHaveLength(1);
    await expectChange('the next look', () => watch.verify());
    expect(watchers).toHaveLength(2);
  });

  it('leaves nothing open if it is closed during a check', async () => {
    mkdirSync(directory, { recursive: true });
    const hold = deferred<void>();
    const watch = start({
      stat: async (path) => {
        await hold.promise;
        return nodeFileSystem.stat(path);
      },
    });
    const closing = watch.close();
    hold.resolve();
    await closing;
    watch.verify();
    await quiet();
    expect(armed).toEqual([]);
    expect(changes).toBe(0);
  });
});

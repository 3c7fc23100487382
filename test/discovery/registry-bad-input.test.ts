import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { nodeFileSystem } from '../../src/discovery/folder/file-system.ts';
import type { WatchedFolders } from '../../src/discovery/folder/watched-folders.ts';
import { SourceUnavailableError } from '../../src/discovery/source.ts';
import { within } from '../rig/wait.ts';
import { asUser, needRoot, run } from './as-root.ts';
import {
  fileSystem,
  keysOf,
  notesOn,
  registryFolder,
  registrySource,
  withFacts,
  type RegistryFolder,
} from './registry-stage.ts';

const never = new AbortController().signal;

describe('bad input in the registry directory', () => {
  let folder: RegistryFolder;
  let directory: string;
  let put: RegistryFolder['put'];
  beforeEach(() => {
    folder = registryFolder();
    ({ directory, put } = folder);
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  const entry = (): string => join(directory, 'x.json');

  interface BadEntry {
    readonly name: string;
    /** Creates `x.json`. */
    readonly make: () => unknown;
    readonly note: RegExp;
    readonly isListed?: true;
    readonly needsRoot?: true;
  }
  /** More refused content is in registration.test.ts. */
  const bad: readonly BadEntry[] = [
    { name: 'a half-written file', make: () => put('x.json', '{"name":"a","port":40'), note: /not complete JSON/ },
    {
      name: 'a file of 30 MB',
      make: () => put('x.json', Buffer.alloc(30_000_000, ' ')),
      note: /has 30000000 bytes, more than the limit of 65536/,
    },
    { name: 'a FIFO', make: () => run('mkfifo', entry()), note: /is a FIFO, not a regular file/ },
    {
      name: 'a symbolic link to a good file',
      make: () => symlinkSync(put('.hidden', { port: 5000 }), entry()),
      note: /is a symbolic link/,
    },
    { name: 'a dangling symbolic link', make: () => symlinkSync('/nowhere', entry()), note: /is a symbolic link/ },
    { name: 'a folder', make: () => mkdirSync(entry()), note: /is a folder/ },
    { name: 'a socket', make: listenOnEntry, note: /is a socket/ },
    { name: 'a device', make: () => run('mknod', entry(), 'c', '1', '5'), note: /is a device/, needsRoot: true },
    {
      name: 'a name with escapes',
      make: () => put('x.json', { name: '\u001b[2Jx', port: 4000 }),
      note: /name: left out control/,
      isListed: true,
    },
  ];
  it.for(bad)(
    'notes $name, lists the rest and changes nothing',
    async ({ make, note, isListed, needsRoot }, context) => {
      if (needsRoot) needRoot(context);
      await make();
      put('good.json');
      const before = contentOf(directory);
      const scan = await within(registrySource(directory).scan(never), 'the scan');
      expect(notesOn(scan, '/x.json')).toMatch(note);
      expect(keysOf(scan)).toEqual(isListed ? ['good.json', 'x.json'] : ['good.json']);
      expect(contentOf(directory)).toEqual(before);
    },
  );

  async function listenOnEntry(): Promise<void> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(entry(), resolve));
    onTestFinished(() => void server.close());
  }

  it('notes a file name that is not UTF-8', async () => {
    writeFileSync(
      Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff]), Buffer.from('.json')]),
      '{"port":4096}',
    );
    expect(notesOn(await registrySource(directory).scan(never), '.json"')).toMatch(/not UTF-8/);
  });

  it('notes a file without read permission', async (context) => {
    needRoot(context);
    chmodSync(folder.path, 0o755);
    chmodSync(directory, 0o755);
    put('good.json');
    chmodSync(put('x.json'), 0o600);
    const source = registrySource(directory, { uid: 65_534 });
    const scan = await asUser(65_534, () => source.scan(never));
    expect(keysOf(scan)).toEqual(['good.json']);
    expect(notesOn(scan, '/x.json')).toMatch(/cannot be read: EACCES; give the user of this program read permission/);
    expect(keysOf(await source.scan(never))).toEqual(['good.json', 'x.json']);
  });

  it('cleans a hostile file name', async () => {
    put('\u001b]0;x\u0007\u202ea.json');
    const scan = await registrySource(directory).scan(never);
    expect(scan.candidates[0]?.key).toBe('%1B%5D0%3Bx%07%E2%80%AEa.json');
    put('\u001b[2Jb.json', 'no');
    expect((await registrySource(directory).scan(never)).notes[0]?.subject).toBe(join(directory, 'b.json'));
  });

  describe('a file that changes between listing and opening', () => {
    /** Reports the stats of a good file for `x.json` at listing. */
    const lateChange = fileSystem({ lstat: (path) => nodeFileSystem.lstat(path.replace(/x\.json$/, 'good.json')) });

    it.each([
      { what: 'a FIFO', make: () => run('mkfifo', entry()), note: /is a FIFO/ },
      {
        what: 'a symbolic link',
        make: () => symlinkSync(join(directory, 'good.json'), entry()),
        note: /is a symbolic link/,
      },
      { what: 'a folder', make: () => mkdirSync(entry()), note: /is a folder/ },
      { what: 'a file of 30 MB', make: () => put('x.json', Buffer.alloc(30_000_000)), note: /has 30000000 bytes/ },
    ])('neither follows nor blocks on $what', async ({ make, note }) => {
      put('good.json');
      make();
      const scan = await within(registrySource(directory, { fs: lateChange }).scan(never), 'the scan', 3000);
      expect(notesOn(scan, '/x.json')).toMatch(note);
      expect(keysOf(scan)).toEqual(['good.json']);
    });

    it('is skipped if it is gone', async () => {
      put('good.json');
      const readdir = async (): Promise<string[]> => ['good.json', 'x.json'];
      for (const fs of [fileSystem({ readdir }), { ...lateChange, readdir }]) {
        const scan = await registrySource(directory, { fs }).scan(never);
        expect(keysOf(scan)).toEqual(['good.json']);
        expect(scan.notes).toEqual([]);
      }
    });

    it('is read up to its listed size if it grows, and to its end if it shrinks', async () => {
      put('grown.json', `{"port":4096,"name":"${'x'.repeat(100)}"}`);
      put('shrunk.json', '{"port":4096}');
      const scan = await registrySource(directory, { fs: withFacts({ size: 20n }) }).scan(never);
      expect(notesOn(scan, '/grown.json')).toMatch(/not complete JSON: damaged, or still being written/);
      expect(keysOf(scan)).toEqual(['shrunk.json']);
    });

    it('gets its trust from the stats of the file that was read', async () => {
      put('good.json');
      chmodSync(put('x.json'), 0o666);
      const { candidates } = await registrySource(directory, { fs: lateChange }).scan(never);
      expect(candidates.map(({ trust }) => trust.level)).toEqual(['trusted', 'untrusted']);
    });
  });

  describe('a directory', () => {
    it('is unavailable if it is missing, a dangling link, or removed while it is read', async () => {
      await expect(registrySource(join(directory, 'no', 'reg')).scan(never)).rejects.toThrow(SourceUnavailableError);
      symlinkSync('/nowhere', join(directory, 'link'));
      await expect(registrySource(join(directory, 'link')).scan(never)).rejects.toThrow(
        /there is no registry directory at .*\/link/,
      );
      const readdir = async (path: string): Promise<string[]> => {
        rmSync(path, { recursive: true });
        return [];
      };
      await expect(registrySource(directory, { fs: fileSystem({ readdir }) }).scan(never)).rejects.toThrow(
        SourceUnavailableError,
      );
    });

    it('fails if a file is in its place or above it, or if links form a loop', async () => {
      const file = put('a.json');
      const loop = join(directory, 'loop');
      symlinkSync('loop', loop);
      const notDirectory = /cannot read the registry directory .*: ENOTDIR; .*RELAY_REGISTRY_DIR/;
      for (const [path, message] of [
        [file, notDirectory],
        [join(file, 'reg'), notDirectory],
        [loop, /ELOOP/],
      ] as const) {
        const error = await failureOf(registrySource(path));
        expect(error).not.toBeInstanceOf(SourceUnavailableError);
        expect(error).toMatchObject({ message: expect.stringMatching(message) });
      }
    });

    it.for<[string, number, number, RegExp]>([
      ['belongs to this user', 65_534, 0o000, /: EACCES; give uid 65534 read and search permission/],
      [
        'belongs to another user',
        1000,
        0o700,
        /: EACCES; it belongs to uid 1000: run this as uid 1000 \(docker run --user 1000:1000\)$/,
      ],
      ['belongs to another user and can only be listed', 1000, 0o744, /: EACCES; it belongs to uid 1000: run this as/],
    ])('fails with advice if it is inaccessible and %s', async ([, owner, mode, message], context) => {
      needRoot(context);
      chmodSync(folder.path, 0o755);
      chownSync(directory, owner, owner);
      chmodSync(directory, mode);
      put('a.json');
      const failure = (explicit: boolean): Promise<unknown> =>
        asUser(65_534, () => failureOf(registrySource(directory, { uid: 65_534, explicit })));
      expect(await failure(true)).toMatchObject({ message: expect.stringMatching(message) });
      expect(await failure(true)).not.toBeInstanceOf(SourceUnavailableError);
      // The default directory belongs to the first user who created it, which is not a failure.
      const isUnavailable = (await failure(false)) instanceof SourceUnavailableError;
      expect(isUnavailable).toBe(owner !== 65_534);
    });

    it('names the owner of an inaccessible parent directory', async (context) => {
      needRoot(context);
      chownSync(folder.path, 1000, 1001);
      const error = await asUser(65_534, () => failureOf(registrySource(directory, { uid: 65_534 })));
      expect(String(error)).toContain(
        `EACCES; ${folder.path} belongs to uid 1000: run this as uid 1000 (docker run --user 1000:1001)`,
      );
    });
  });
});

/** The error of a scan. */
function failureOf(source: WatchedFolders): Promise<unknown> {
  return source.scan(never).then(
    () => undefined,
    (error: unknown) => error,
  );
}

/** Every entry of a directory with everything that a write would change. */
function contentOf(directory: string): unknown[] {
  return readdirSync(directory).map((name) => {
    const { ino, mode, size, mtimeMs, ctimeMs } = lstatSync(join(directory, name));
    const isSmallFile = (mode & 0o170000) === 0o100000 && size < 1_000_000;
    return [name, ino, mode, size, mtimeMs, ctimeMs, isSmallFile && readFileSync(join(directory, name), 'utf8')];
  });
}

import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFileSystem } from '../../src/discovery/folder/file-system.ts';
import { within } from '../rig/wait.ts';
import { needRoot, run } from './as-root.ts';
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

  /** Each creates `x.json`, with the expected note; for more content see registration.test.ts. `listed`: it is a candidate nevertheless. */
  const bad: readonly { name: string; make: () => void; note: RegExp; listed?: true }[] = [
    { name: 'a half-written file', make: () => put('x.json', '{"name":"a","port":40'), note: /not complete JSON/ },
    {
      name: 'a file of 30 MB',
      make: () => put('x.json', Buffer.alloc(30_000_000, ' ')),
      note: /has 30000000 bytes, more than the limit of 65536/,
    },
    { name: 'a FIFO', make: () => run('mkfifo', join(directory, 'x.json')), note: /is a FIFO, not a regular file/ },
    {
      name: 'a symlink to a good file',
      make: () => symlinkSync(put('.hidden', { port: 5000 }), join(directory, 'x.json')),
      note: /is a symbolic link/,
    },
    {
      name: 'a dangling symlink',
      make: () => symlinkSync('/nowhere', join(directory, 'x.json')),
      note: /is a symbolic link/,
    },
    { name: 'a folder', make: () => mkdirSync(join(directory, 'x.json')), note: /is a folder/ },
    {
      name: 'a name with escapes',
      make: () => put('x.json', { name: '\u001b[2Jx', port: 4000 }),
      note: /name: left out control/,
      listed: true,
    },
  ];
  it.each(bad)('notes $name, lists the rest and changes nothing', async ({ make, note, listed }) => {
    make();
    put('good.json');
    const before = contentOf(directory);
    const scan = await within(registrySource(directory).scan(never), 'the scan');
    expect(notesOn(scan, '/x.json')).toMatch(note);
    expect(keysOf(scan)).toEqual(listed ? ['good.json', 'x.json'] : ['good.json']);
    expect(contentOf(directory)).toEqual(before);
  });

  it('notes a socket', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(directory, 'x.json'), resolve));
    const scan = await registrySource(directory).scan(never);
    expect(notesOn(scan, '/x.json')).toMatch(/is a socket/);
    await new Promise((resolve) => server.close(resolve));
  });

  it('notes a device', async (context) => {
    needRoot(context);
    run('mknod', join(directory, 'x.json'), 'c', '1', '5');
    expect(notesOn(await registrySource(directory).scan(never), '/x.json')).toMatch(/is a device/);
  });

  it('notes a file name that is not UTF-8', async () => {
    writeFileSync(
      Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff]), Buffer.from('.json')]),
      '{"port":4096}',
    );
    expect(notesOn(await registrySource(directory).scan(never), '.json"')).toMatch(/not UTF-8/);
  });

  it('shows a hostile file name cleaned', async () => {
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
      { what: 'a FIFO', make: () => run('mkfifo', join(directory, 'x.json')), note: /is a FIFO/ },
      {
        what: 'a symlink',
        make: () => symlinkSync(join(directory, 'good.json'), join(directory, 'x.json')),
        note: /is a symbolic link/,
      },
      { what: 'a folder', make: () => mkdirSync(join(directory, 'x.json')), note: /is a folder/ },
      { what: 'a file of 30 MB', make: () => put('x.json', Buffer.alloc(30_000_000)), note: /has 30000000 bytes/ },
    ])('neither follows nor blocks on $what', async ({ make, note }) => {
      put('good.json');
      make();
      const scan = await within(registrySource(directory, { fs: lateChange }).scan(never), 'the scan', 3000);
      expect(notesOn(scan, '/x.json')).toMatch(note);
      expect(keysOf(scan)).toEqual(['good.json']);
    });

    it('is left out if it is gone', async () => {
      put('good.json');
      const readdir = async (): Promise<string[]> => ['good.json', 'x.json'];
      for (const fs of [fileSystem({ readdir }), { ...lateChange, readdir }]) {
        const scan = await registrySource(directory, { fs }).scan(never);
        expect(keysOf(scan)).toEqual(['good.json']);
        expect(scan.notes).toEqual([]);
      }
    });

    it('is read up to its first size if it grows', async () => {
      put('x.json', `{"port":4096,"name":"${'x'.repeat(100)}"}`);
      const scan = await registrySource(directory, { fs: withFacts({ size: 20n }) }).scan(never);
      expect(notesOn(scan, '/x.json')).toMatch(/not complete JSON: damaged, or still being written/);
    });

    it('is read if it shrinks', async () => {
      put('x.json', '{"port":4096}');
      const scan = await registrySource(directory, { fs: withFacts({ size: 20n }) }).scan(never);
      expect(keysOf(scan)).toEqual(['x.json']);
    });

    it('is trusted or not by the file that was read', async () => {
      put('good.json');
      chmodSync(put('x.json'), 0o666);
      const { candidates } = await registrySource(directory, { fs: lateChange }).scan(never);
      expect(candidates.map(({ trust }) => trust.level)).toEqual(['trusted', 'untrusted']);
    });
  });
});

/** Every entry of a directory with everything that a write would change. */
function contentOf(directory: string): unknown[] {
  return readdirSync(directory).map((name) => {
    const { ino, mode, size, mtimeMs, ctimeMs } = lstatSync(join(directory, name));
    const isSmallFile = (mode & 0o170000) === 0o100000 && size < 1_000_000;
    return [name, ino, mode, size, mtimeMs, ctimeMs, isSmallFile && readFileSync(join(directory, name), 'utf8')];
  });
}

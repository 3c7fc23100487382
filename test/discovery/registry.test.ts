import { chownSync, mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFileSystem, type FileSystem } from '../../src/discovery/folder/file-system.ts';
import { openRegistry } from '../rig/registry.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { within } from '../rig/wait.ts';
import { asUser, needRoot } from './as-root.ts';
import { conformance, holdUp } from './conformance.ts';
import { type FolderStage, folderSubject } from './folder-subject.ts';
import {
  fileSystem,
  HOSTNAME,
  keysOf,
  notesOn,
  registryFolder,
  registrySource,
  systemError,
  withCalls,
  withFacts,
  type RegistryFolder,
} from './registry-stage.ts';

const never = new AbortController().signal;

async function stage(fs = nodeFileSystem): Promise<FolderStage> {
  const folder = registryFolder();
  const { directory } = folder;
  const registry = await openRegistry(directory);
  const names = ['api', 'web', 'worker'];
  for (const [index, name] of names.entries())
    await registry.add({ name, port: 4096 + index, id: `id-${name}` }, { password: 'x' });
  let changes = 0;
  return {
    source: registrySource(directory, { fs }),
    directory,
    keys: names.map((name) => `${name}.json`),
    change: async () => {
      changes += 1;
      await registry.add({ name: `new-${changes}`, port: 5000 + changes });
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

conformance(
  folderSubject('local-relay', stage, {
    lstat: (path) => (path.endsWith('web.json') ? Promise.reject(systemError('EIO')) : nodeFileSystem.lstat(path)),
  }),
);

describe('the registry directory', () => {
  let folder: RegistryFolder;
  let directory: string;
  let put: RegistryFolder['put'];
  /** The path of this user's own directory, which does not exist. */
  let own: string;
  beforeEach(() => {
    folder = registryFolder();
    ({ directory, put } = folder);
    own = join(folder.path, 'own');
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  it("is read in addition to this user's own if it is the default", async () => {
    const source = registrySource(directory, { explicit: false, own });
    put('a.json');
    const alone = await source.scan(never);
    expect([keysOf(alone), alone.dropped]).toEqual([['a.json'], undefined]);
    mkdirSync(own, 0o700);
    writeFileSync(join(own, 'a.json'), '{"port": 4097}');
    expect(keysOf(await source.scan(never))).toEqual(['a.json', 'own/a.json']);
  });

  it('is skipped with a reason if it is the default and belongs to another user', async (context) => {
    needRoot(context);
    mkdirSync(own, 0o700);
    writeFileSync(join(own, 'a.json'), '{"port": 4097}');
    chownSync(directory, 1000, 1000);
    for (const path of [folder.path, own, join(own, 'a.json')]) chownSync(path, 65_534, 65_534);
    const source = registrySource(directory, { explicit: false, own, uid: 65_534 });
    const scan = (): Promise<Scan> => asUser(65_534, () => source.scan(never));
    const dropped = [{ subject: 'local-relay', reason: expect.stringMatching(/EACCES; it belongs to uid 1000/) }];
    expect(await scan()).toMatchObject({ candidates: [{ key: 'own/a.json' }], notes: [], dropped });
    rmSync(directory, { recursive: true });
    writeFileSync(directory, '');
    chownSync(directory, 1000, 1000);
    expect(keysOf(await scan())).toEqual(['own/a.json']);
    rmSync(own, { recursive: true });
    await expect(scan()).rejects.toThrow(/belongs to uid 1000: run this as uid 1000/);
    writeFileSync(own, '');
    chownSync(own, 65_534, 65_534);
    await expect(scan()).rejects.toThrow(/own: ENOTDIR/);
  });

  it('ignores temporary files, other files and the folder of credentials', async () => {
    put('.a.json');
    put('a.json.tmp.1');
    put('README');
    mkdirSync(join(directory, '.credentials'));
    expect(await registrySource(directory).scan(never)).toEqual({ candidates: [], notes: [] });
  });

  it('yields at most 100 notes on its files', async () => {
    for (let index = 0; index < 150; index += 1) put(`${index}.json`, 'no');
    const { notes } = await registrySource(directory).scan(never);
    expect(notes).toHaveLength(101);
    expect(notes.at(-1)).toEqual({ subject: directory, reason: 'and 50 more' });
  });

  it('lists the newest up to its limit, and reads unchanged files only once', async () => {
    for (let index = 1; index <= 8; index += 1) put(`${index}.json`);
    for (const old of [2, 4, 8]) utimesSync(join(directory, `${old}.json`), 1, 1);
    let opened = 0;
    const open: FileSystem['open'] = (path, flags) => {
      opened += 1;
      return nodeFileSystem.open(path, flags);
    };
    const source = registrySource(directory, { fs: fileSystem({ open }), maxRegistrations: 5 });
    const scan = await source.scan(never);
    expect(keysOf(scan)).toEqual(['1.json', '3.json', '5.json', '6.json', '7.json']);
    expect(notesOn(scan, directory)).toMatch(/holds 3 registrations more than the limit of 5/);
    expect(opened).toBe(5);
    expect(await source.scan(never)).toEqual(scan);
    expect(opened).toBe(5);
    put('7.json', { port: 5555 });
    const { candidates } = await source.scan(never);
    expect(candidates.at(-1)?.endpoint.url).toBe('http://127.0.0.1:5555');
    expect(opened).toBe(6);
  });

  it('does not reopen files that an aborted scan has read', async () => {
    for (let index = 0; index < 100; index += 1) put(`${index}.json`);
    const abort = new AbortController();
    let opened = 0;
    const open: FileSystem['open'] = (path, flags) => {
      opened += 1;
      if (opened === 50) abort.abort();
      return nodeFileSystem.open(path, flags);
    };
    const openedAtStart: number[] = [];
    const readdir: FileSystem['readdir'] = (path) => {
      openedAtStart.push(opened);
      return nodeFileSystem.readdir(path);
    };
    const source = registrySource(directory, { fs: fileSystem({ open, readdir }) });
    await expect(source.scan(abort.signal)).rejects.toThrow(/abort/);
    const { candidates } = await source.scan(never);
    expect(candidates).toHaveLength(100);
    expect(openedAtStart).toEqual([0, 50]);
  });

  it.each<[how: string, fs: FileSystem, rewrite: (path: string) => void]>([
    [
      'in place, with its old timestamp restored',
      nodeFileSystem,
      (path) => {
        writeFileSync(path, '{"port":5678}');
        utimesSync(path, 1, 1);
      },
    ],
    [
      'by rename, on a file system without timestamps',
      withFacts({ mtimeNs: 0n, ctimeNs: 0n }),
      (path) => {
        writeFileSync(`${path}.tmp`, '{"port":5678}', { mode: 0o644 });
        renameSync(`${path}.tmp`, path);
      },
    ],
  ])('rereads a file that was rewritten with the same size %s', async (_, fs, rewrite) => {
    const path = put('a.json', '{"port":1234}');
    utimesSync(path, 1, 1);
    const source = registrySource(directory, { fs });
    await source.scan(never);
    rewrite(path);
    const { candidates } = await source.scan(never);
    expect(candidates[0]?.endpoint.url).toBe('http://127.0.0.1:5678');
  });

  it('closes after its open files are closed, and then rejects scans', async () => {
    put('a.json');
    const hold = holdUp();
    const order: string[] = [];
    const open = async (path: string, flags: number) => {
      await hold.pass();
      const handle = await nodeFileSystem.open(path, flags);
      return withCalls(handle, {
        close: async () => {
          await handle.close();
          order.push('file');
        },
      });
    };
    const source = registrySource(directory, { fs: fileSystem({ open }) });
    const scan = source.scan(never).catch(() => {});
    await within(hold.entered, 'the scan to open a file');
    const closing = source.close().then(() => order.push('source'));
    await scan;
    hold.release();
    await within(closing, 'the close');
    expect(order).toEqual(['file', 'source']);
    await expect(source.scan(never)).rejects.toThrow('the source local-relay is closed');
  });

  it('is read again from the start if it is replaced during a scan', async () => {
    put('old.json');
    let replaced = 0;
    const replace = (times: number) => async (path: string) => {
      const names = await nodeFileSystem.readdir(path);
      if (replaced < times) {
        replaced += 1;
        renameSync(directory, `${directory}.${replaced}`);
        mkdirSync(directory, 0o700);
        put('new.json');
      }
      return names;
    };
    const once = registrySource(directory, { fs: fileSystem({ readdir: replace(1) }) });
    expect(keysOf(await once.scan(never))).toEqual(['new.json']);
    const always = registrySource(directory, { fs: fileSystem({ readdir: replace(100) }) });
    await expect(always.scan(never)).rejects.toThrow(/was replaced each of the 3 times/);
    expect(replaced).toBe(4);
  });

  it("passes this machine's name and the directory's owner to its candidates", async (context) => {
    needRoot(context);
    chownSync(directory, 1000, 1000);
    put('a.json', { port: 4096, hostname: HOSTNAME });
    chownSync(put('b.json', { port: 4097, hostname: 'laptop', id: 'i1' }), 1000, 1000);
    const { candidates } = await registrySource(directory).scan(never);
    expect(candidates.map(({ endpoint }) => endpoint.route)).toEqual(['loopback', 'relay']);
    expect(candidates[1]?.credential).toEqual({
      password: { kind: 'file', path: join(directory, '.credentials', 'i1'), ownerUid: 1000, optional: true },
    });
  });
});

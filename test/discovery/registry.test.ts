import { chmodSync, chownSync, lstatSync, mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFileSystem, type FileSystem } from '../../src/discovery/folder/file-system.ts';
import { openRegistry } from '../rig/registry.ts';
import type { Scan } from '../../src/discovery/source.ts';
import { within } from '../rig/wait.ts';
import { asUser, needRoot } from './as-root.ts';
import { conformance, holdUp, type HintingStage } from './conformance.ts';
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

async function stage(
  changed: Parameters<typeof registrySource>[1] = {},
): Promise<HintingStage & { readonly directory: string }> {
  const folder = registryFolder();
  const { directory } = folder;
  const registry = await openRegistry(directory);
  const names = ['api', 'web', 'worker'];
  for (const [index, name] of names.entries())
    await registry.add({ name, port: 4096 + index, id: `id-${name}` }, { password: 'x' });
  let changes = 0;
  return {
    source: registrySource(directory, changed),
    directory,
    keys: names.map((name) => `${name}.json`),
    change: async () => {
      changes += 1;
      await registry.add({ name: `new-${changes}`, port: 5000 + changes });
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

conformance({
  name: 'local-relay',
  working: () => stage(),
  hinting: () => stage(),
  unavailable: async () => {
    const made = await stage();
    rmSync(made.directory, { recursive: true });
    return made;
  },
  failingMidway: () =>
    stage({
      fs: fileSystem({
        lstat: (path) => (path.endsWith('web.json') ? Promise.reject(systemError('EIO')) : nodeFileSystem.lstat(path)),
      }),
    }),
  hanging: async () => {
    const hold = holdUp();
    let inside = 0;
    const readdir = async (path: string): Promise<string[]> => {
      inside += 1;
      expect(inside).toBe(1);
      await hold.pass();
      inside -= 1;
      return nodeFileSystem.readdir(path);
    };
    return { ...(await stage({ fs: fileSystem({ readdir }) })), ...hold };
  },
});

describe('the registry directory', () => {
  let folder: RegistryFolder;
  let directory: string;
  let put: RegistryFolder['put'];
  beforeEach(() => {
    folder = registryFolder();
    ({ directory, put } = folder);
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  it('lists two files with the same name as two instances', async () => {
    put('a.json', { name: 'api', port: 4096 });
    put('b.json', { name: 'api', port: 4097 });
    const { candidates, notes } = await registrySource(directory).scan(never);
    expect(candidates.map(({ key, claims, endpoint }) => [key, claims.name, endpoint.url])).toEqual([
      ['a.json', 'api', 'http://127.0.0.1:4096'],
      ['b.json', 'api', 'http://127.0.0.1:4097'],
    ]);
    expect(notes).toEqual([]);
  });

  it("the default one is read besides this user's own, and either may be missing or another user's", async (context) => {
    needRoot(context);
    put('a.json');
    const own = join(folder.path, 'own');
    const source = registrySource(directory, { explicit: false, own });
    const alone = await source.scan(never);
    expect([keysOf(alone), alone.dropped]).toEqual([['a.json'], undefined]);
    mkdirSync(own, 0o700);
    writeFileSync(join(own, 'a.json'), '{"port": 4097}');
    expect(keysOf(await source.scan(never))).toEqual(['a.json', 'own/a.json']);
    chownSync(directory, 1000, 1000);
    chmodSync(directory, 0o700);
    for (const path of [folder.path, own, join(own, 'a.json')]) chownSync(path, 65_534, 65_534);
    const asNobody = (work: () => Promise<Scan>): Promise<Scan> => asUser(65_534, work);
    const theirs = registrySource(directory, { explicit: false, own, uid: 65_534 });
    const scan = await asNobody(() => theirs.scan(never));
    const dropped = [{ subject: 'local-relay', reason: expect.stringMatching(/EACCES; it belongs to uid 1000/) }];
    expect(scan).toMatchObject({ candidates: [{ key: 'own/a.json' }], notes: [], dropped });
    rmSync(directory, { recursive: true });
    writeFileSync(directory, '');
    chownSync(directory, 1000, 1000);
    expect(keysOf(await asNobody(() => theirs.scan(never)))).toEqual(['own/a.json']);
    rmSync(own, { recursive: true });
    await expect(asNobody(() => theirs.scan(never))).rejects.toThrow(/belongs to uid 1000: run this as uid 1000/);
    writeFileSync(own, '');
    chownSync(own, 65_534, 65_534);
    await expect(asNobody(() => theirs.scan(never))).rejects.toThrow(/own: ENOTDIR/);
  });

  it('keeps a hostile cwd in the claims only', async () => {
    put('a.json', { port: 4096, cwd: '/evil' });
    const [candidate] = (await registrySource(directory).scan(never)).candidates;
    expect(candidate?.claims.directory).toBe('/evil');
    expect(JSON.stringify({ ...candidate, claims: undefined })).not.toContain('evil');
  });

  it('ignores temporary names, other files and the folder of credentials', async () => {
    put('.a.json');
    put('a.json.tmp.1');
    put('README');
    mkdirSync(join(directory, '.credentials'));
    expect(await registrySource(directory).scan(never)).toEqual({ candidates: [], notes: [] });
  });

  it('recognises its own machine', async () => {
    put('a.json', { port: 4096, localPort: 4096, hostname: HOSTNAME });
    put('b.json', { port: 4097, localPort: 4096, hostname: 'laptop' });
    const { candidates } = await registrySource(directory).scan(never);
    expect(candidates.map(({ endpoint }) => endpoint.route)).toEqual(['loopback', 'relay']);
  });

  it('bounds its notes', async () => {
    for (let index = 0; index < 150; index += 1) put(`${index}.json`, 'no');
    const { notes } = await registrySource(directory).scan(never);
    expect(notes).toHaveLength(101);
    expect(notes.at(-1)).toEqual({ subject: directory, reason: 'and 50 more' });
  });

  it('lists the newest 10,000, and reads unchanged files only once', async () => {
    for (let index = 0; index < 10_003; index += 1) put(`${index}.json`, { port: 4096 });
    for (const old of [17, 5000, 10_002]) utimesSync(join(directory, `${old}.json`), 1, 1);
    let opened = 0;
    const open: FileSystem['open'] = (path, flags) => {
      opened += 1;
      return nodeFileSystem.open(path, flags);
    };
    const source = registrySource(directory, { fs: fileSystem({ open }) });
    const scan = await source.scan(never);
    expect(scan.candidates).toHaveLength(10_000);
    expect(keysOf(scan)).not.toEqual(expect.arrayContaining([expect.stringMatching(/^(17|5000|10002)\.json$/)]));
    expect(notesOn(scan, directory)).toMatch(/holds 3 registrations more than the limit of 10000/);
    expect(opened).toBe(10_000);

    expect(await source.scan(never)).toEqual(scan);
    expect(opened).toBe(10_000);

    put('.next', { port: 5555 });
    renameSync(join(directory, '.next'), join(directory, '8.json'));
    const changed = await source.scan(never);
    expect(opened).toBe(10_001);
    expect(changed.candidates.find(({ key }) => key === '8.json')?.endpoint.url).toBe('http://127.0.0.1:5555');
  }, 60_000);

  it('continues an aborted scan with the next', async () => {
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

  const rewrites: readonly { name: string; rewrite: (path: string) => void }[] = [
    { name: 'in place', rewrite: (path) => writeFileSync(path, '{"port":5678}') },
    {
      name: 'by rename, with the old time put back',
      rewrite: (path) => {
        const { mtime } = lstatSync(path);
        writeFileSync(`${path}.tmp`, '{"port":5678}');
        utimesSync(`${path}.tmp`, mtime, mtime);
        renameSync(`${path}.tmp`, path);
      },
    },
    {
      name: 'in place, with the old time put back',
      rewrite: (path) => {
        const { mtime } = lstatSync(path);
        writeFileSync(path, '{"port":5678}');
        utimesSync(path, mtime, mtime);
      },
    },
  ];
  it.each(rewrites)('sees a file rewritten to the same size $name', async ({ rewrite }) => {
    const path = put('a.json', '{"port":1234}');
    utimesSync(path, 1, 1);
    const source = registrySource(directory);
    await source.scan(never);
    rewrite(path);
    const { candidates } = await source.scan(never);
    expect(candidates[0]?.endpoint.url).toBe('http://127.0.0.1:5678');
  });

  it('sees a file replaced by rename on a file system without times', async () => {
    const path = put('a.json', '{"port":1234}');
    const source = registrySource(directory, { fs: withFacts({ mtimeNs: 0n, ctimeNs: 0n }) });
    await source.scan(never);
    writeFileSync(`${path}.tmp`, '{"port":5678}', { mode: 0o644 });
    renameSync(`${path}.tmp`, path);
    const { candidates } = await source.scan(never);
    expect(candidates[0]?.endpoint.url).toBe('http://127.0.0.1:5678');
  });

  it('rejects a scan after it was closed', async () => {
    const source = registrySource(directory);
    await source.close();
    await expect(source.scan(never)).rejects.toThrow('the source local-relay is closed');
  });

  it('closes after its open files are closed', async () => {
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
  });

  it('forgets a file that is gone', async () => {
    put('a.json');
    put('b.json');
    const source = registrySource(directory);
    await source.scan(never);
    rmSync(join(directory, 'a.json'));
    expect(keysOf(await source.scan(never))).toEqual(['b.json']);
  });

  it('starts over when the directory is replaced while it is read', async () => {
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

  it("gives a credential of the directory's owner", async (context) => {
    needRoot(context);
    chownSync(directory, 1000, 1000);
    chownSync(put('a.json', { port: 4096, id: 'i1' }), 1000, 1000);
    const { candidates } = await registrySource(directory).scan(never);
    expect(candidates[0]?.credential).toEqual({
      password: { kind: 'file', path: join(directory, '.credentials', 'i1'), ownerUid: 1000, optional: true },
    });
  });
});

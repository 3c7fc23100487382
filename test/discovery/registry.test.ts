import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync, type BigIntStats } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFileSystem, type FileSystem } from '../../src/discovery/file-system.ts';
import { SourceUnavailableError, type Scan } from '../../src/discovery/source.ts';
import { openRegistry } from '../rig/registry.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';
import { asUser, needRoot, run } from './as-root.ts';
import { conformance, holdUp, type Stage } from './conformance.ts';
import { fileSystem, HOSTNAME, keysOf, notesOn, registrySource, systemError, withCalls } from './registry-stage.ts';

const never = new AbortController().signal;

async function stage(changed: Parameters<typeof registrySource>[1] = {}): Promise<Stage & { readonly directory: string }> {
  const folder = tempDir('registry');
  const directory = join(folder.path, 'reg');
  const registry = await openRegistry(directory);
  const names = ['api', 'web', 'worker'];
  for (const [index, name] of names.entries()) await registry.add({ name, port: 4096 + index, id: `id-${name}` }, { password: 'x' });
  let changes = 0;
  return {
    source: registrySource(directory, changed),
    directory,
    keys: names.map((name) => `${name}.json`),
    change: async () => {
      changes += 1;
      await registry.add({ name: `new-${changes}`, port: 5000 + changes });
    },
    [Symbol.asyncDispose]: () => folder.close(),
  };
}

conformance({
  name: 'local-relay',
  hints: true,
  working: () => stage(),
  unavailable: async () => {
    const made = await stage();
    rmSync(made.directory, { recursive: true });
    return made;
  },
  failingMidway: () => stage({ fs: fileSystem({ lstat: (path) => (path.endsWith('web.json') ? Promise.reject(systemError('EIO')) : nodeFileSystem.lstat(path)) }) }),
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
  let folder: TempDir;
  let directory: string;
  beforeEach(() => {
    folder = tempDir('registry');
    directory = join(folder.path, 'reg');
    mkdirSync(directory, 0o700);
  });
  afterEach(() => folder.close());

  const put = (fileName: string, content: unknown = { name: fileName, port: 4096 }): string => {
    const path = join(directory, fileName);
    writeFileSync(path, typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content), { mode: 0o644 });
    return path;
  };

  /** Each makes `x.json` and names what the note on it says; undefined where it is a candidate all the same. */
  const bad: readonly { name: string; make: () => void; note: RegExp; listed?: true }[] = [
    { name: 'a half-written file', make: () => put('x.json', '{"name":"a","port":40'), note: /not complete JSON/ },
    { name: 'an empty file', make: () => put('x.json', ''), note: /empty/ },
    { name: 'a file that is not JSON', make: () => put('x.json', 'hello'), note: /not complete JSON/ },
    { name: 'a wrong-typed file', make: () => put('x.json', { port: '4096' }), note: /port: expected an integer/ },
    { name: 'a file of 30 MB', make: () => put('x.json', Buffer.alloc(30_000_000, ' ')), note: /has 30000000 bytes, more than the 65536/ },
    { name: 'a file of NUL bytes', make: () => put('x.json', '\0\0\0\0'), note: /NUL bytes/ },
    { name: 'port 0', make: () => put('x.json', { port: 0 }), note: /port: .*got 0/ },
    { name: 'port 99999', make: () => put('x.json', { port: 99_999 }), note: /port: .*got 99999/ },
    { name: 'port "x"', make: () => put('x.json', { port: 'x' }), note: /port: .*got "x"/ },
    { name: 'a FIFO', make: () => run('mkfifo', join(directory, 'x.json')), note: /is a FIFO, not a regular file/ },
    { name: 'a symlink to a good file', make: () => symlinkSync(put('.hidden', { port: 5000 }), join(directory, 'x.json')), note: /is a symbolic link/ },
    { name: 'a dangling symlink', make: () => symlinkSync('/nowhere', join(directory, 'x.json')), note: /is a symbolic link/ },
    { name: 'a folder', make: () => mkdirSync(join(directory, 'x.json')), note: /is a folder/ },
    { name: 'a newer protocol', make: () => put('x.json', { protocol: 9 }), note: /newer opencode-connected \(protocol 9\)/ },
    { name: 'a name with escapes', make: () => put('x.json', { name: '\u001b[2Jx', port: 4000 }), note: /name: left out control/, listed: true },
    { name: 'a name with newlines', make: () => put('x.json', { name: 'x\ny', port: 4000 }), note: /name: left out control/, listed: true },
    { name: 'a name with path parts', make: () => put('x.json', { name: '../../x', port: 4000 }), note: /name: looks like a path/, listed: true },
    { name: 'a name of 10,000 characters', make: () => put('x.json', { name: 'x'.repeat(10_000), port: 4000 }), note: /name: cut to 128/, listed: true },
  ];
  it.each(bad)('tells of $name in a note, lists the rest and touches nothing', async ({ make, note, listed }) => {
    make();
    put('good.json');
    const before = contentOf(directory);
    const scan = await within(registrySource(directory).scan(never), 'the scan');
    expect(notesOn(scan, '/x.json')).toMatch(note);
    expect(keysOf(scan)).toEqual(listed ? ['good.json', 'x.json'] : ['good.json']);
    expect(contentOf(directory)).toEqual(before);
  });

  it('tells of a socket in a note', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(directory, 'x.json'), resolve));
    const scan = await registrySource(directory).scan(never);
    expect(notesOn(scan, '/x.json')).toMatch(/is a socket/);
    await new Promise((resolve) => server.close(resolve));
  });

  it('tells of a device in a note', async (context) => {
    needRoot(context);
    run('mknod', join(directory, 'x.json'), 'c', '1', '5');
    expect(notesOn(await registrySource(directory).scan(never), '/x.json')).toMatch(/is a device/);
  });

  it('tells of a file name that is not UTF-8', async () => {
    writeFileSync(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff]), Buffer.from('.json')]), '{"port":4096}');
    expect(notesOn(await registrySource(directory).scan(never), '.json')).toMatch(/not UTF-8/);
  });

  it('shows a hostile file name cleaned', async () => {
    put('\u001b]0;x\u0007\u202ea.json');
    const scan = await registrySource(directory).scan(never);
    expect(scan.candidates[0]?.key).toBe('%1B%5D0%3Bx%07%E2%80%AEa.json');
    put('\u001b[2Jb.json', 'no');
    expect((await registrySource(directory).scan(never)).notes[0]?.subject).toBe(join(directory, 'b.json'));
  });

  it('takes files of equal names for two instances', async () => {
    put('a.json', { name: 'api', port: 4096 });
    put('b.json', { name: 'api', port: 4097 });
    const { candidates, notes } = await registrySource(directory).scan(never);
    expect(candidates.map(({ key, claims, endpoint }) => [key, claims.name, endpoint.url])).toEqual([
      ['a.json', 'api', 'http://127.0.0.1:4096'],
      ['b.json', 'api', 'http://127.0.0.1:4097'],
    ]);
    expect(notes).toEqual([]);
  });

  it('carries a hostile cwd as a claim and nowhere else', async () => {
    put('a.json', { port: 4096, cwd: '/evil' });
    const [candidate] = (await registrySource(directory).scan(never)).candidates;
    expect(candidate?.claims.directory).toBe('/evil');
    expect(JSON.stringify({ ...candidate, claims: undefined })).not.toContain('evil');
  });

  it('passes over temporary names, other files and the folder of credentials', async () => {
    put('.a.json');
    put('a.json.tmp.1');
    put('README');
    mkdirSync(join(directory, '.credentials'));
    expect(await registrySource(directory).scan(never)).toEqual({ candidates: [], notes: [] });
  });

  it('knows its own machine', async () => {
    put('a.json', { port: 4096, localPort: 4096, hostname: HOSTNAME });
    put('b.json', { port: 4097, localPort: 4096, hostname: 'laptop' });
    const { candidates } = await registrySource(directory).scan(never);
    expect(candidates.map(({ endpoint }) => endpoint.route)).toEqual(['loopback', 'relay']);
  });

  it('bounds its notes', async () => {
    for (let index = 0; index < 150; index += 1) put(`${index}.json`, 'no');
    const { notes } = await registrySource(directory).scan(never);
    expect(notes).toHaveLength(101);
    expect(notes.at(-1)).toEqual({ subject: directory, reason: 'and notes on 50 more files' });
  });

  it('lists the newest 10,000 of more, and reads none of them again while they stay', async () => {
    for (let index = 0; index < 10_003; index += 1) put(`${index}.json`, { port: 4096 });
    for (const old of [17, 5000, 10_002]) utimesSync(join(directory, `${old}.json`), 1, 1);
    const source = registrySource(directory);
    const scan = await source.scan(never);
    expect(scan.candidates).toHaveLength(10_000);
    expect(keysOf(scan)).not.toEqual(expect.arrayContaining([expect.stringMatching(/^(17|5000|10002)\.json$/)]));
    expect(notesOn(scan, directory)).toMatch(/holds 3 registrations more than the 10000/);
    expect(source.stats.filesRead).toBe(10_000);

    expect(await source.scan(never)).toEqual(scan);
    expect(source.stats.filesRead).toBe(10_000);

    put('.next', { port: 5555 });
    renameSync(join(directory, '.next'), join(directory, '8.json'));
    const changed = await source.scan(never);
    expect(source.stats.filesRead).toBe(10_001);
    expect(changed.candidates.find(({ key }) => key === '8.json')?.endpoint.url).toBe('http://127.0.0.1:5555');
  }, 60_000);

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

  it('sees a file replaced by rename where the file system keeps no times', async () => {
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

  it('is closed only when the files it was reading are', async () => {
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

  describe('when what is listed changes before it is opened', () => {
    /** Shows the facts of a good file for `x.json`, as they were when the directory was listed. */
    const lateChange = fileSystem({ lstat: (path) => nodeFileSystem.lstat(path.replace(/x\.json$/, 'good.json')) });

    it.each([
      { what: 'a FIFO', make: () => run('mkfifo', join(directory, 'x.json')), note: /is a FIFO/ },
      { what: 'a symlink', make: () => symlinkSync(join(directory, 'good.json'), join(directory, 'x.json')), note: /is a symbolic link/ },
      { what: 'a folder', make: () => mkdirSync(join(directory, 'x.json')), note: /is a folder/ },
      { what: 'a file of 30 MB', make: () => put('x.json', Buffer.alloc(30_000_000)), note: /has 30000000 bytes/ },
    ])('neither follows nor waits on $what', async ({ make, note }) => {
      put('good.json');
      make();
      const scan = await within(registrySource(directory, { fs: lateChange }).scan(never), 'the scan', 3000);
      expect(notesOn(scan, '/x.json')).toMatch(note);
      expect(keysOf(scan)).toEqual(['good.json']);
    });

    it('lists the rest when one is gone', async () => {
      put('good.json');
      const readdir = async (): Promise<string[]> => ['good.json', 'x.json'];
      for (const fs of [fileSystem({ readdir }), { ...lateChange, readdir }]) {
        const scan = await registrySource(directory, { fs }).scan(never);
        expect(keysOf(scan)).toEqual(['good.json']);
        expect(scan.notes).toEqual([]);
      }
    });

    it('reads no more of a growing file than it had at first', async () => {
      put('x.json', `{"port":4096,"name":"${'x'.repeat(100)}"}`);
      const scan = await registrySource(directory, { fs: withFacts({ size: 20n }) }).scan(never);
      expect(notesOn(scan, '/x.json')).toMatch(/not complete JSON: damaged, or still being written/);
    });

    it('reads a file that shrinks', async () => {
      put('x.json', '{"port":4096}');
      const scan = await registrySource(directory, { fs: withFacts({ size: 20n }) }).scan(never);
      expect(keysOf(scan)).toEqual(['x.json']);
    });

    it('judges the file that it read, not the one that was listed', async () => {
      put('good.json');
      chmodSync(put('x.json'), 0o666);
      const { candidates } = await registrySource(directory, { fs: lateChange }).scan(never);
      expect(candidates.map(({ trust }) => trust.level)).toEqual(['trusted', 'untrusted']);
    });
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

  describe('that cannot be read', () => {
    it('is unavailable when it is missing, or a dangling link, or removed while it is read', async () => {
      await expect(registrySource(join(directory, 'no', 'reg')).scan(never)).rejects.toThrow(SourceUnavailableError);
      symlinkSync('/nowhere', join(directory, 'link'));
      await expect(registrySource(join(directory, 'link')).scan(never)).rejects.toThrow(/there is no registry directory at .*\/link/);
      const readdir = async (path: string): Promise<string[]> => {
        rmSync(path, { recursive: true });
        return [];
      };
      await expect(registrySource(directory, { fs: fileSystem({ readdir }) }).scan(never)).rejects.toThrow(SourceUnavailableError);
    });

    it('says so when a file stands in its place or above it', async () => {
      const file = put('a.json');
      for (const path of [file, join(file, 'reg')]) {
        const error: unknown = await registrySource(path).scan(never).catch((reason: unknown) => reason);
        expect(error).not.toBeInstanceOf(SourceUnavailableError);
        expect(error).toMatchObject({ message: expect.stringMatching(/cannot read the registry directory .*: ENOTDIR; .*RELAY_REGISTRY_DIR/) });
      }
    });

    it('says so when links go round in a circle', async () => {
      symlinkSync('loop', join(directory, 'loop'));
      await expect(registrySource(join(directory, 'loop')).scan(never)).rejects.toThrow(/ELOOP/);
    });

    it('says what to do when permission is missing', async (context) => {
      needRoot(context);
      chmodSync(folder.path, 0o755);
      const error: unknown = await asUser(65_534, () => registrySource(directory, { uid: 65_534 }).scan(never).catch((reason: unknown) => reason));
      expect(error).not.toBeInstanceOf(SourceUnavailableError);
      expect(error).toMatchObject({ message: expect.stringMatching(/: EACCES; give uid 65534 read and search permission/) });
    });

    it('in part: notes the file whose permission is missing', async (context) => {
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

    it('is fine on a read-only mount', async (context) => {
      needRoot(context);
      put('good.json');
      put('x.json', 'no');
      const script = `mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/probe" && exec "$1" --import tsx "$2" "$0"`;
      const child = fileURLToPath(new URL('./scan-registry.ts', import.meta.url));
      const scan: Scan = JSON.parse(run('unshare', '-m', 'sh', '-c', script, directory, process.execPath, child));
      expect(scan.candidates).toMatchObject([{ key: 'good.json', trust: { level: 'trusted' } }]);
      expect(notesOn(scan, '/x.json')).toMatch(/not complete JSON/);
    });
  });

  it('gives a credential that belongs to the owner of the directory', async (context) => {
    needRoot(context);
    chownSync(directory, 1000, 1000);
    chownSync(put('a.json', { port: 4096, id: 'i1' }), 1000, 1000);
    const { candidates } = await registrySource(directory).scan(never);
    expect(candidates[0]?.credential).toEqual({ password: { kind: 'file', path: join(directory, '.credentials', 'i1'), ownerUid: 1000, optional: true } });
  });
});

/** A file system whose files tell the facts given. */
function withFacts(facts: Partial<BigIntStats>): FileSystem {
  return fileSystem({
    open: async (path, flags) => {
      const handle = await nodeFileSystem.open(path, flags);
      return withCalls(handle, { stat: async () => Object.assign(await handle.stat({ bigint: true }), facts) });
    },
    lstat: async (path) => Object.assign(await nodeFileSystem.lstat(path), facts),
  });
}

/** Every entry of a directory with all that a write or a read for update would change. */
function contentOf(directory: string): unknown[] {
  return readdirSync(directory).map((name) => {
    const { ino, mode, size, mtimeMs, ctimeMs } = lstatSync(join(directory, name));
    const isSmallFile = (mode & 0o170000) === 0o100000 && size < 1_000_000;
    return [name, ino, mode, size, mtimeMs, ctimeMs, isSmallFile && readFileSync(join(directory, name), 'utf8')];
  });
}

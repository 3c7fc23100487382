import { chmodSync, chownSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SourceUnavailableError, type Scan } from '../../src/discovery/source.ts';
import { asUser, needRoot, run } from './as-root.ts';
import { fileSystem, keysOf, notesOn, registryFolder, registrySource, type RegistryFolder } from './registry-stage.ts';

const never = new AbortController().signal;

describe('a registry directory', () => {
  let folder: RegistryFolder;
  let directory: string;
  let put: RegistryFolder['put'];
  beforeEach(() => {
    folder = registryFolder();
    ({ directory, put } = folder);
  });
  afterEach(() => folder[Symbol.asyncDispose]());

  describe('that cannot be read', () => {
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

    it('fails if a file is in its place or above it', async () => {
      const file = put('a.json');
      for (const path of [file, join(file, 'reg')]) {
        const error: unknown = await registrySource(path)
          .scan(never)
          .catch((reason: unknown) => reason);
        expect(error).not.toBeInstanceOf(SourceUnavailableError);
        expect(error).toMatchObject({
          message: expect.stringMatching(/cannot read the registry directory .*: ENOTDIR; .*RELAY_REGISTRY_DIR/),
        });
      }
    });

    it('fails on a loop of links', async () => {
      symlinkSync('loop', join(directory, 'loop'));
      await expect(registrySource(join(directory, 'loop')).scan(never)).rejects.toThrow(/ELOOP/);
    });

    describe('without permission', () => {
      beforeEach(needRoot);

      it.each([
        ['it is ours', 65_534, 0o000, /: EACCES; give uid 65534 read and search permission/],
        [
          "it is another user's",
          1000,
          0o700,
          /: EACCES; it belongs to uid 1000: run this as uid 1000 \(docker run --user 1000:1000\)$/,
        ],
        ["it is another user's, in part", 1000, 0o744, /: EACCES; it belongs to uid 1000: run this as/],
      ])('gives advice if %s', async (_, owner, mode, message) => {
        chmodSync(folder.path, 0o755);
        chownSync(directory, owner, owner);
        chmodSync(directory, mode);
        put('a.json');
        const problem = (explicit: boolean): Promise<unknown> =>
          asUser(65_534, () =>
            registrySource(directory, { uid: 65_534, explicit })
              .scan(never)
              .catch((reason: unknown) => reason),
          );
        expect(await problem(true)).toMatchObject({ message: expect.stringMatching(message) });
        expect(await problem(true)).not.toBeInstanceOf(SourceUnavailableError);
        // The default directory belongs to the first user who created it, which is not a failure.
        const isUnavailable = (await problem(false)) instanceof SourceUnavailableError;
        expect(isUnavailable).toBe(owner !== 65_534);
      });

      it('names the owner of a closed folder above it', async () => {
        chownSync(folder.path, 1000, 1001);
        const scan = (): Promise<Scan> => registrySource(directory, { uid: 65_534 }).scan(never);
        await expect(asUser(65_534, scan)).rejects.toThrow(
          `EACCES; ${folder.path} belongs to uid 1000: run this as uid 1000 (docker run --user 1000:1001)`,
        );
      });
    });

    it('notes a file that it may not read', async (context) => {
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

    it('works on a read-only mount', async (context) => {
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
});

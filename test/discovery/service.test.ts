import { chmodSync, chownSync, mkdirSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { nodeFileSystem } from '../../src/discovery/folder/file-system.ts';
import type { RegistryDependencies } from '../../src/discovery/registry/registry.ts';
import { createServiceSource } from '../../src/discovery/service/service.ts';
import { type Scan, SourceUnavailableError } from '../../src/discovery/source.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { within } from '../rig/wait.ts';
import { needRoot, run } from './as-root.ts';
import { conformance } from './conformance.ts';
import { type FolderStage, folderSubject } from './folder-subject.ts';
import { fileSystem, HOSTNAME, keysOf, notesOn, systemError } from './registry-stage.ts';

const never = new AbortController().signal;
const MARK = 'f0rtyTwo-s3cret';

const SERVICE = { id: 'a1', version: '2.3.2', url: 'http://127.0.0.1:49374', pid: 4242, password: MARK };
const PREVIEW = { id: 'p', version: '1.18.18', url: 'http://127.0.0.1:4096', pid: 4243 };

function source(
  directory: string,
  overrides: Partial<RegistryDependencies> = {},
): ReturnType<typeof createServiceSource> {
  const dependencies = { logger: silentLogger, uid: process.getuid?.(), hostname: HOSTNAME, ...overrides };
  return createServiceSource({ directory }, dependencies);
}

/** Writes to another name, then renames, like OpenCode. */
function write(directory: string, fileName: string, content: unknown): void {
  const path = join(directory, fileName);
  const text = typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content);
  writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}

async function stage(fs = nodeFileSystem): Promise<FolderStage> {
  const folder = tempDir('service');
  const directory = join(folder.path, 'opencode');
  mkdirSync(directory);
  write(directory, 'service.json', SERVICE);
  write(directory, 'service-beta.json', { ...SERVICE, url: 'http://127.0.0.1:49375' });
  write(directory, 'server.json', PREVIEW);
  write(directory, 'password', MARK);
  write(directory, 'model.json', {});
  let changes = 0;
  return {
    source: source(directory, { fs }),
    directory,
    keys: ['server', 'service', 'service-beta'],
    change: async () => {
      changes += 1;
      write(directory, `service-c${changes}.json`, SERVICE);
    },
    [Symbol.asyncDispose]: () => folder.close(),
  };
}

conformance(
  folderSubject('service', stage, {
    open: (path, flags) =>
      path.endsWith('service.json') ? Promise.reject(systemError('EMFILE')) : nodeFileSystem.open(path, flags),
  }),
);

describe('the service source', () => {
  let folder: TempDir;
  let directory: string;
  beforeEach(() => {
    folder = tempDir('service');
    directory = folder.path;
  });
  afterEach(() => folder.close());

  const put = (fileName: string, content: unknown): void => write(directory, fileName, content);
  const scanWith = (overrides: Partial<RegistryDependencies> = {}): Promise<Scan> =>
    source(directory, overrides).scan(never);

  it('lists a service with its password', async () => {
    put('service.json', SERVICE);
    expect(await scanWith()).toEqual({
      candidates: [
        {
          source: 'service',
          key: 'service',
          endpoint: { url: 'http://127.0.0.1:49374', route: 'loopback', holderPid: 4242 },
          claims: { hostname: HOSTNAME, localPort: 49_374, service: { pid: 4242, version: '2.3.2' } },
          trust: { level: 'trusted' },
          credential: { username: 'opencode', password: { kind: 'value', value: MARK } },
        },
      ],
      notes: [],
    });
  });

  it('lists the preview with the password from a separate file', async () => {
    put('server.json', PREVIEW);
    put('password', MARK);
    expect(await scanWith()).toMatchObject({
      candidates: [
        {
          key: 'server',
          claims: { localPort: 4096, service: { pid: 4243, version: '1.18.18', isPreview: true } },
          credential: { password: { kind: 'value', value: MARK } },
        },
      ],
      notes: [],
    });
  });

  it.each([
    ['a service without a password', 'service.json', { ...SERVICE, password: undefined }],
    ['a service with an empty password', 'service.json', { ...SERVICE, password: '' }],
    ['a preview without a password file', 'server.json', PREVIEW],
    ['a preview with a password only in its service file', 'server.json', SERVICE],
  ])('lists %s, without a credential', async (_, fileName, content) => {
    put(fileName, content);
    const { candidates, notes } = await scanWith();
    expect(candidates).toMatchObject([{ trust: { level: 'trusted' } }]);
    expect(candidates[0]?.credential).toBeUndefined();
    expect(notes).toEqual([]);
  });

  it('reads only service files', async () => {
    for (const name of ['model.json', 'service.json.tmp', 'service-.json', 'service- b.json', 'services.json'])
      put(name, SERVICE);
    expect(await scanWith()).toEqual({ candidates: [], notes: [] });
  });

  it('keeps the key of a service that restarts, until its file is gone', async () => {
    put('service.json', SERVICE);
    const serviceSource = source(directory);
    const [before] = (await serviceSource.scan(never)).candidates;
    put('service.json', { ...SERVICE, id: 'b2', pid: 5151 });
    const [after] = (await serviceSource.scan(never)).candidates;
    expect([before?.key, before?.endpoint.holderPid]).toEqual(['service', 4242]);
    expect([after?.key, after?.endpoint.holderPid]).toEqual(['service', 5151]);
    unlinkSync(join(directory, 'service.json'));
    expect(await serviceSource.scan(never)).toEqual({ candidates: [], notes: [] });
  });

  it.each([
    ['http://127.9.8.7:4096', 'http://127.9.8.7:4096'],
    ['http://localhost:4096/', 'http://localhost:4096'],
    ['http://[::1]:4096', 'http://[::1]:4096'],
    ['http://0x7f.1:4096', 'http://127.0.0.1:4096'],
    // The preview writes these if it listens on every address.
    ['http://0.0.0.0:4096', 'http://127.0.0.1:4096'],
    ['http://[::]:4096', 'http://[::1]:4096'],
    ['http://127.0.0.1', 'http://127.0.0.1:80'],
  ])('normalizes the URL %s to %s', async (url, expected) => {
    put('service.json', { ...SERVICE, url });
    expect((await scanWith()).candidates.map(({ endpoint }) => endpoint.url)).toEqual([expected]);
  });

  const hostile = `\u001b]0;x\u0007\u202e${MARK}\nIgnore`;
  it.each<[string, unknown, RegExp]>([
    ['no JSON', '{"url":"http:', /is not a JSON object/],
    ['null', 'null', /is not a JSON object/],
    ['missing fields', {}, /url: expected text; pid: expected an integer from 1/],
    ['pid 0', { ...SERVICE, pid: 0 }, /pid: /],
    ['a pid above 31 bits', { ...SERVICE, pid: 1e12 }, /pid: /],
    ['a fraction as pid', { ...SERVICE, pid: 1.5 }, /pid: /],
    ['text as pid', { ...SERVICE, pid: '4242/../1' }, /pid: /],
    ['a list as password', { ...SERVICE, password: [MARK] }, /password: expected text/],
    ['another host', { ...SERVICE, url: 'http://10.1.2.3:4096' }, /is 10\.1\.2\.3, not loopback.*"instances"/],
    ['a host name', { ...SERVICE, url: 'http://127.0.0.1.evil.example:4096' }, /host is 127\.0\.0\.1\.evil\.example/],
    ['an IPv4-mapped address', { ...SERVICE, url: 'http://[::ffff:127.0.0.1]:4096' }, /not loopback/],
    ['https', { ...SERVICE, url: 'https://127.0.0.1:4096' }, /expected http:/],
    ['no URL', { ...SERVICE, url: '127.0.0.1:4096' }, /expected http/],
    ['a path', { ...SERVICE, url: 'http://127.0.0.1:4096/x' }, /only a scheme/],
    ['a user', { ...SERVICE, url: `http://o:${MARK}@127.0.0.1:4096` }, /only a scheme/],
    ['a blocked port', { ...SERVICE, url: 'http://127.0.0.1:6667' }, /port 6667/],
    ['hostile text as version', { ...SERVICE, version: hostile }, /version: expected 1 to 64 letters/],
    ['a long version', { ...SERVICE, version: '1'.repeat(65) }, /version: /],
    ['hostile text as url', { ...SERVICE, url: hostile }, /url: expected http/],
    ['a host of hostile text', { ...SERVICE, url: `http://${encodeURIComponent('\u202eevil')}` }, /url: /],
    ['more than 64 KiB', { ...SERVICE, id: 'x'.repeat(70_000) }, /bytes, more than the limit of 65536/],
  ])('leaves out a file with %s and notes the reason', async (_, content, reason) => {
    put('service.json', content);
    put('service-beta.json', SERVICE);
    const scan = await scanWith();
    expect(keysOf(scan)).toEqual(['service-beta']);
    expect(notesOn(scan, 'service.json')).toMatch(reason);
    expect(JSON.stringify(scan.notes)).not.toContain(MARK);
  });

  describe('lists as untrusted and without password', () => {
    async function expectUntrusted(reason: RegExp, overrides: Partial<RegistryDependencies> = {}): Promise<void> {
      const scan = await scanWith(overrides);
      expect(scan.candidates).toMatchObject([{ trust: { level: 'untrusted', reason: expect.stringMatching(reason) } }]);
      expect(scan.candidates[0]?.credential).toBeUndefined();
      expect(scan.notes).toMatchObject([{ reason: expect.stringMatching(/^untrusted: /) }]);
      expect(JSON.stringify(scan)).not.toContain(MARK);
    }

    it.each([0o644, 0o640, 0o620, 0o601])('a file of mode %o', async (mode) => {
      put('service.json', SERVICE);
      chmodSync(join(directory, 'service.json'), mode);
      await expectUntrusted(
        /other users have access to \S+service\.json \(mode 06\d\d\); run: chmod 600 \S+service\.json/,
      );
    });

    it('a file of another user, and any file on a system without user ids', async (context) => {
      needRoot(context);
      put('service.json', SERVICE);
      await expectUntrusted(/cannot be checked/, { uid: undefined });
      chownSync(join(directory, 'service.json'), 65_533, 65_533);
      await expectUntrusted(/service\.json belongs to uid 65533, not to this user \(uid 0\); run this as uid 65533/);
    });

    it('a preview whose password file is a FIFO or readable by others', async () => {
      put('server.json', PREVIEW);
      put('password', MARK);
      chmodSync(join(directory, 'password'), 0o644);
      await expectUntrusted(/access to \S+password \(mode 0644\)/);
      unlinkSync(join(directory, 'password'));
      run('mkfifo', join(directory, 'password'));
      await within(expectUntrusted(/the file "password" beside it is a FIFO/), 'the scan');
    });
  });

  it('gives a hint when the preview gets a new password', async () => {
    put('server.json', PREVIEW);
    const serviceSource = source(directory);
    onTestFinished(() => serviceSource.close());
    const hints = serviceSource.changes(never)[Symbol.asyncIterator]();
    await within(hints.next(), 'the first hint');
    const hint = within(hints.next(), 'a hint of the password');
    put('password', 'new');
    await hint;
    expect((await serviceSource.scan(never)).candidates).toMatchObject([
      { credential: { password: { value: 'new' } } },
    ]);
  });

  it('reads at most 16 files', async () => {
    for (let index = 10; index < 30; index += 1) put(`service-${index}.json`, SERVICE);
    const { candidates, notes } = await scanWith();
    expect(candidates).toHaveLength(16);
    expect(notes).toMatchObject([{ reason: expect.stringMatching(/^holds 20 service files, and only 16 are read/) }]);
  });

  it('reports why its directory cannot be read', async () => {
    const denied = fileSystem({ readdir: () => Promise.reject(systemError('EACCES')) });
    await expect(scanWith({ fs: denied })).rejects.toThrow(/^cannot read the folder \S+: EACCES$/);
    writeFileSync(join(directory, 'file'), '');
    await expect(source(join(directory, 'file')).scan(never)).rejects.toThrow(SourceUnavailableError);
  });
});

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, chown, lstat, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { runCleanup } from '../../../src/connected/cleanup/command.ts';
import { identifyProcess } from '../../../src/connected/process-table.ts';
import type { Places } from '../../../src/connected/status/places.ts';
import { needRoot } from '../../discovery/as-root.ts';
import { freePort } from '../../rig/ports.ts';
import { HOUR_MS, openRemains, type Remains } from './remains.ts';

const never = new AbortController().signal;

describe('cleanup on this machine', () => {
  let remains: Remains;
  const servers: Server[] = [];

  beforeEach(async () => {
    remains = await openRemains();
  });
  afterEach(async () => {
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
    await remains[Symbol.asyncDispose]();
  });

  async function listen(): Promise<number> {
    const port = await freePort();
    const server = createServer((_, response) => response.end());
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    return port;
  }

  async function cleanup({ dryRun = false, places = {}, onText = () => {} }: CleanupCase = {}): Promise<{
    readonly text: string;
    readonly code: number;
  }> {
    let text = '';
    const out = (more: string): void => {
      text += more;
      onText(more);
    };
    const code = await runCleanup({ settings: remains.places(places), dryRun, out, signal: never });
    return { text, code };
  }

  interface CleanupCase {
    readonly dryRun?: boolean;
    readonly places?: Partial<Places>;
    readonly onText?: (text: string) => void;
  }

  it('removes the remains of a dead instance, password and state file too', async () => {
    const { id, port } = await remains.register('app', { claim: 'dead', password: true });
    const state = await remains.state({ id, port });
    const { text, code } = await cleanup();
    expect(text).toContain(`registration ${remains.registry}/app.json`);
    expect(text).toContain('Removed');
    expect(code).toBe(0);
    expect(await remains.files()).toEqual([]);
    expect(existsSync(state)).toBe(false);
  });

  it('removes a registration without a claim if the state file proves it dead', async () => {
    const { id, port } = await remains.register('app', { password: true });
    await remains.state({ id, port });
    expect((await cleanup()).code).toBe(0);
    expect(await remains.files()).toEqual([]);
  });

  it('lists everything before it removes anything, and removes nothing in a dry run', async () => {
    await remains.register('app', { claim: 'dead', password: true });
    const before = await remains.files();
    const dry = await cleanup({ dryRun: true });
    expect(dry.text).toMatch(
      /^Dead:\n {2}registration .*app\.json\n {4}the process that held its name \(pid \d+\) has ended/,
    );
    expect(dry.text).toContain('Nothing was removed (--dry-run).');
    expect(await remains.files()).toEqual(before);
    const steps: string[] = [];
    await cleanup({ onText: (text) => steps.push(text) });
    expect(steps[0]).toMatch(/registration .*\n[^]*password /);
    expect(steps.slice(1).every((step) => step.startsWith('Removed '))).toBe(true);
  });

  it('reports that there is nothing to do, even without a directory', async () => {
    expect(await cleanup()).toEqual({ text: 'Nothing is provably dead.\n', code: 0 });
    await rm(remains.registry, { recursive: true });
    expect(await cleanup()).toEqual({ text: 'Nothing is provably dead.\n', code: 0 });
  });

  it('leaves a held claim, a running wrapper and a port that answers', async () => {
    const process = await remains.process();
    const pid = process.pid ?? 0;
    await remains.register('held', { claim: { pid }, password: true });
    const wrapped = await remains.register('wrapped', { password: true });
    const started = (await identifyProcess(pid))?.started;
    await remains.state({ ...wrapped, pid, ...(started !== undefined && { started }) });
    const answering = await remains.register('answering', { port: await listen(), claim: 'dead', password: true });
    const outlived = await remains.register('outlived', { port: await listen() });
    await remains.state(outlived);
    const before = await remains.files();
    const { text } = await cleanup();
    expect(await remains.files()).toEqual(before);
    expect(text).not.toContain('held.json');
    expect(text).not.toContain('wrapped.json');
    expect(text).toContain(`has ended, but something listens on its port ${answering.port}`);
    expect(text).toContain(`has ended, but something listens on its port ${outlived.port}`);
  });

  it('is not misled by a later process with the pid of a dead one', async () => {
    const { pid = 0 } = await remains.process();
    const { id } = await remains.register('app');
    await writeFile(join(remains.registry, '.app.claim'), `${id} ${pid} 12 ${hostname()}\n`);
    expect((await cleanup()).text).toContain('Removed');
    expect(await remains.files()).toEqual([]);
  });

  it.each([
    ['nobody claims it', {}, 'its writer is unknown'],
    ['nobody claims it and it has no id', { fields: { id: undefined } }, 'its writer is unknown'],
    ['it has no id', { claim: 'dead', fields: { id: undefined } }, 'its writer is unknown'],
  ] as const)('leaves a silent registration where %s', async (_, options, reason) => {
    await remains.register('app', options);
    const before = await remains.files();
    expect((await cleanup()).text).toContain(reason);
    expect(await remains.files()).toEqual(before);
  });

  it('leaves a registration whose claim is that of another instance', async () => {
    const { id } = await remains.register('app');
    await remains.claim('app', 'another');
    await remains.state({ id });
    const { text } = await cleanup();
    expect(text).toContain('its writer is unknown');
    expect(await remains.files()).toEqual(['.app.claim', 'app.json']);
  });

  it('leaves a name that a process of another machine holds', async () => {
    const { id } = await remains.register('app');
    await writeFile(join(remains.registry, '.app.claim'), `${id} 1 1 elsewhere\n`);
    expect((await cleanup()).text).toContain('is held by a process of "elsewhere", which cannot be checked here');
    expect(await remains.files()).toEqual(['.app.claim', 'app.json']);
  });

  it('leaves and names garbage', async () => {
    await remains.register('alive');
    await writeFile(join(remains.registry, 'half.json'), '{"name":"ha');
    await writeFile(join(remains.registry, 'empty.json'), '');
    await writeFile(join(remains.registry, 'binary.json'), Buffer.from([0xff, 0x00, 0x0a, 0x0a, 0x1b, 0x5b, 0x41]));
    await writeFile(join(remains.registry, 'large.json'), `{"port":1,"x":"${'x'.repeat(100_000)}"}`);
    await writeFile(join(remains.registry, 'line\nbreak.json'), '{}');
    await writeFile(
      Buffer.concat([Buffer.from(`${remains.registry}/`), Buffer.from([0xff]), Buffer.from('.json')]),
      '{}',
    );
    await mkdir(join(remains.registry, 'folder.json'));
    await remains.claim('half', 'id-x');
    const before = await remains.files();
    const { text, code } = await cleanup();
    expect(text).toMatch(/half\.json\n {4}is not complete JSON/);
    expect(text).toMatch(/empty\.json\n {4}is empty/);
    expect(text).toMatch(/large\.json\n {4}has \d+ bytes, more than/);
    expect(text).toMatch(/folder\.json\n {4}is a folder, not a regular file/);
    expect(text).toMatch(/line break\.json'?"?\n {4}port: expected/);
    expect(text).toContain('its name is not UTF-8');
    // oxlint-disable-next-line no-control-regex -- what is looked for
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
    expect(code).toBe(0);
    expect(await remains.files()).toEqual(before);
  });

  it('follows no symbolic link', async () => {
    const outside = join(remains.path, 'outside');
    await mkdir(outside);
    const { port } = await remains.register('app', { id: 'id-app' });
    await rename(join(remains.registry, 'app.json'), join(outside, 'app.json'));
    await symlink(join(outside, 'app.json'), join(remains.registry, 'app.json'));
    await remains.state({ id: 'id-app', port });
    await writeFile(join(outside, 'claim'), `id-two 1 1 ${hostname()}\n`);
    await symlink(join(outside, 'claim'), join(remains.registry, '.two.claim'));
    await remains.register('two', { id: 'id-two' });
    await writeFile(join(outside, 'id-old'), 'a secret\n');
    await rm(join(remains.registry, '.credentials'), { recursive: true });
    await symlink(outside, join(remains.registry, '.credentials'));
    const { text } = await cleanup();
    expect(text).toMatch(/app\.json\n {4}is a symbolic link/);
    expect(existsSync(join(outside, 'app.json'))).toBe(true);
    expect(existsSync(join(outside, 'id-old'))).toBe(true);
    expect((await lstat(join(remains.registry, 'app.json'))).isSymbolicLink()).toBe(true);
    expect(existsSync(join(remains.registry, 'two.json'))).toBe(true);
  });

  it("leaves another user's files", async (context) => {
    needRoot(context);
    await remains.register('theirs', { claim: 'dead', password: true, id: 'id-theirs' });
    for (const name of ['theirs.json', '.theirs.claim', '.credentials/id-theirs']) {
      await chown(join(remains.registry, name), 65_534, 65_534);
    }
    await remains.register('claimed-by-them', { claim: 'dead', id: 'id-two' });
    await chown(join(remains.registry, '.claimed-by-them.claim'), 65_534, 65_534);
    await remains.password('id-old', { ageMs: 2 * HOUR_MS });
    await chown(join(remains.registry, '.credentials', 'id-old'), 65_534, 65_534);
    const before = await remains.files();
    const { text } = await cleanup();
    expect(text).toMatch(/theirs\.json\n {4}belongs to uid 65534, not to this user/);
    expect(text).toMatch(/id-old\n {4}belongs to another user/);
    expect(await remains.files()).toEqual(before);
  });

  it('leaves everything in a directory to which others can write', async () => {
    await remains.register('app', { claim: 'dead', password: true });
    await chmod(remains.registry, 0o770);
    const { text } = await cleanup();
    expect(text).toContain('others can write in the registry directory');
    expect(text).toContain('Nothing is provably dead.');
    expect(await remains.files()).toEqual(['.app.claim', '.credentials/id-1', 'app.json']);
  });

  it('reports why it cannot enter the directory, and cleans up the rest', async () => {
    const state = await remains.state({ id: 'gone' });
    await rm(remains.registry, { recursive: true });
    await writeFile(remains.registry, 'no directory');
    const { text, code } = await cleanup();
    expect(text).toMatch(
      /This machine's registry directory could not be read: the registry directory .* is no directory/,
    );
    expect(text).toContain('Removed state file');
    expect(existsSync(state)).toBe(false);
    expect(code).toBe(1);
  });

  it('removes an old password that no registration needs, and no other', async () => {
    await remains.password('old', { ageMs: 2 * HOUR_MS });
    await remains.password('young');
    const { id } = await remains.register('kept', { fields: {} });
    await remains.password(id, { ageMs: 2 * HOUR_MS });
    await remains.password('claimed', { ageMs: 2 * HOUR_MS });
    await remains.claim('starting', 'claimed', (await remains.process()).pid);
    const { pid = 0 } = await remains.process();
    const started = (await identifyProcess(pid))?.started;
    await remains.password('running', { ageMs: 2 * HOUR_MS });
    await remains.state({ id: 'running', pid, ...(started !== undefined && { started }) });
    const { text } = await cleanup();
    expect(text).toContain('has no registration, but is younger than an hour');
    expect(await remains.files()).toEqual(
      [
        '.credentials/claimed',
        `.credentials/${id}`,
        '.credentials/running',
        '.credentials/young',
        '.starting.claim',
        'kept.json',
      ].toSorted(),
    );
  });

  it('removes the claim of an instance that ended before it was registered', async () => {
    await remains.claim('app', 'id-app');
    await remains.password('id-app');
    await cleanup();
    expect(await remains.files()).toEqual([]);
  });

  it.each([
    ['it\'s "quoted"', 'quotes'],
    ['$(touch ran) `touch ran` ; & | > *', 'what a shell would run'],
    ['ноутбук-目录-🙂', 'Unicode'],
    [String.raw`a\n%s\0101b`, 'backslashes'],
    ['two  words ', 'spaces'],
    ['-rf', 'a dash'],
  ])('removes %j: %s', async (name) => {
    await remains.register(name, { claim: 'dead', password: true, fields: { cwd: `/home/${name}\nx` } });
    expect((await cleanup()).text).toContain('Removed');
    expect(await remains.files()).toEqual([]);
  });

  it('leaves the state file of a wrapper whose opencode still runs', async () => {
    const { pid = 0 } = await remains.process();
    const opencodeStarted = (await identifyProcess(pid))?.started ?? '';
    const state = await remains.state({ id: 'app', opencodePid: pid, opencodeStarted });
    expect((await cleanup()).text).toContain(`but its opencode (pid ${pid}) still runs`);
    expect(existsSync(state)).toBe(true);
  });

  it('leaves a state file whose registration is in another directory, and names it', async () => {
    const other = join(remains.path, 'other');
    await mkdir(other);
    await writeFile(join(other, 'app.json'), '{}');
    const state = await remains.state({ id: 'app', registryFile: join(other, 'app.json') });
    expect((await cleanup()).text).toContain(`RELAY_REGISTRY_DIR=${other}`);
    expect(existsSync(state)).toBe(true);
    expect(await readFile(join(other, 'app.json'), 'utf8')).toBe('{}');
  });

  describe('if something changes between the listing and the removal', () => {
    /** Runs `change` when the list is out, before the first removal. What each removal checks: remove.test.ts. */
    async function meanwhile(change: () => void): Promise<string> {
      let done = false;
      const { text } = await cleanup({
        onText: () => {
          if (!done) change();
          done = true;
        },
      });
      return text;
    }

    it('leaves a registration that is claimed now, and the state file that proves the rest dead', async () => {
      const { id } = await remains.register('app');
      const state = await remains.state({ id });
      const text = await meanwhile(() =>
        writeFileSync(join(remains.registry, '.app.claim'), `id-new ${process.pid} 1 ${hostname()}\n`),
      );
      expect(text).toMatch(/Left registration .*: it has been claimed since/);
      expect(text).toMatch(/Left state file .*: kept as proof/);
      expect(await remains.files()).toEqual(['.app.claim', 'app.json']);
      expect(existsSync(state)).toBe(true);
    });

    it('leaves a state file that a new wrapper has written', async () => {
      const path = await remains.state({ id: 'app' });
      const { started } = (await identifyProcess(process.pid)) ?? {};
      const text = await meanwhile(() => {
        const state = { ...JSON.parse(readFileSync(path, 'utf8')), pid: process.pid, started };
        writeFileSync(path, JSON.stringify(state));
      });
      expect(text).toMatch(/Left state file .*: it has been written since/);
      expect(existsSync(path)).toBe(true);
    });
  });
});

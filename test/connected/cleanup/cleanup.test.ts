import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import { runCleanup } from '../../../src/connected/cleanup/command.ts';
import { identifyProcess } from '../../../src/connected/process-table.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { HOUR_MS, openRemains, outputOf, type Remains } from './remains.ts';

interface CleanupCase {
  readonly dryRun?: boolean;
  /** Called with each chunk of output. */
  readonly onText?: (text: string) => void;
}

describe('cleanup on this machine', () => {
  let remains: Remains;

  beforeEach(async () => {
    remains = await openRemains();
  });

  function cleanup({ dryRun = false, onText = () => {} }: CleanupCase = {}): ReturnType<typeof outputOf> {
    return outputOf(({ out, signal }) => {
      const outAndNotify = (chunk: string): void => {
        out(chunk);
        onText(chunk);
      };
      return runCleanup({ settings: remains.places(), dryRun, out: outAndNotify, signal });
    });
  }

  async function listen(): Promise<number> {
    const { port, close } = await listenHttp((_, response) => response.end());
    onTestFinished(close);
    return port;
  }

  it("removes a dead instance's registration, password and state file", async () => {
    const states = [];
    for (const [name, claim] of [
      ['claimed', 'dead'],
      ['unclaimed', undefined],
    ] as const) {
      const { id, port } = await remains.register(name, { ...(claim && { claim }), password: true });
      states.push(await remains.state({ id, port }));
    }
    const { text, code } = await cleanup();
    for (const name of ['claimed', 'unclaimed'])
      expect(text).toContain(`Removed registration ${remains.registry}/${name}.json`);
    expect(code).toBe(0);
    expect(await remains.files()).toEqual([]);
    expect(states.filter((path) => existsSync(path))).toEqual([]);
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

  it('reports that nothing is dead, with an empty registry directory and with none', async () => {
    expect(await cleanup()).toEqual({ text: 'Nothing is provably dead.\n', code: 0 });
    await rm(remains.registry, { recursive: true });
    expect(await cleanup()).toEqual({ text: 'Nothing is provably dead.\n', code: 0 });
  });

  it('keeps the files of a held claim, of a running wrapper and of an open port', async () => {
    const { pid, started } = await remains.process();
    await remains.register('held', { claim: { pid }, password: true });
    const wrapped = await remains.register('wrapped', { password: true });
    await remains.state({ ...wrapped, pid, started });
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

  it('keeps files that are not registrations, and lists them without control characters', async () => {
    await writeFile(join(remains.registry, 'half.json'), '{"name":"ha');
    await writeFile(join(remains.registry, 'binary.json'), Buffer.from([0xff, 0x00, 0x0a, 0x0a, 0x1b, 0x5b, 0x41]));
    await writeFile(join(remains.registry, 'line\nbreak.json'), '{}');
    const before = await remains.files();
    const { text, code } = await cleanup();
    expect(text).toMatch(/half\.json\n {4}is not complete JSON/);
    expect(text).toMatch(/line break\.json'?"?\n {4}port: expected/);
    // oxlint-disable-next-line no-control-regex -- the output must not contain any
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
    expect(code).toBe(0);
    expect(await remains.files()).toEqual(before);
  });

  it('reports why it cannot read the registry directory, and cleans up the rest', async () => {
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

  it('removes only old passwords that nothing uses', async () => {
    await remains.password('old', { ageMs: 2 * HOUR_MS });
    await remains.password('young');
    const { id } = await remains.register('kept', { fields: {} });
    await remains.password(id, { ageMs: 2 * HOUR_MS });
    await remains.password('claimed', { ageMs: 2 * HOUR_MS });
    const { pid, started } = await remains.process();
    await remains.claim('starting', 'claimed', pid);
    await remains.password('running', { ageMs: 2 * HOUR_MS });
    await remains.state({ id: 'running', pid, started });
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

  it('removes registrations whose names have quotes, spaces or shell syntax', async () => {
    for (const name of [
      'it\'s "quoted"',
      '$(touch ran) `touch ran` ; & | > *',
      'ноутбук-目录-🙂',
      String.raw`a\n%s\0101b`,
      'two  words ',
      '-rf',
    ])
      await remains.register(name, { claim: 'dead', password: true, fields: { cwd: `/home/${name}\nx` } });
    expect((await cleanup()).code).toBe(0);
    expect(await remains.files()).toEqual([]);
  });

  it('keeps the state file of a dead wrapper whose opencode still runs', async () => {
    const { pid, started } = await remains.process();
    const state = await remains.state({ id: 'app', opencodePid: pid, opencodeStarted: started });
    expect((await cleanup()).text).toContain(`but its opencode (pid ${pid}) still runs`);
    expect(existsSync(state)).toBe(true);
  });

  it('keeps a state file whose registration is in another directory, and names that directory', async () => {
    const other = join(remains.path, 'other');
    await mkdir(other);
    await writeFile(join(other, 'app.json'), '{}');
    const state = await remains.state({ id: 'app', registryFile: join(other, 'app.json') });
    expect((await cleanup()).text).toContain(`RELAY_REGISTRY_DIR=${other}`);
    expect(existsSync(state)).toBe(true);
    expect(await readFile(join(other, 'app.json'), 'utf8')).toBe('{}');
  });

  describe('if something changes between the listing and the removal', () => {
    /** Runs `change` between the list and the first removal. remove.test.ts tests the checks of each removal. */
    async function cleanupWithChange(change: () => void): Promise<string> {
      let changed = false;
      const { text } = await cleanup({
        onText: () => {
          if (!changed) change();
          changed = true;
        },
      });
      return text;
    }

    it('keeps a registration that has been claimed, and the state file that proves its other files dead', async () => {
      const { id } = await remains.register('app');
      const state = await remains.state({ id });
      const text = await cleanupWithChange(() =>
        writeFileSync(join(remains.registry, '.app.claim'), `id-new ${process.pid} 1 ${hostname()}\n`),
      );
      expect(text).toMatch(/Left registration .*: it has been claimed since/);
      expect(text).toMatch(/Left state file .*: kept as proof/);
      expect(await remains.files()).toEqual(['.app.claim', 'app.json']);
      expect(existsSync(state)).toBe(true);
    });

    it('keeps a state file that a new wrapper has rewritten', async () => {
      const path = await remains.state({ id: 'app' });
      const { started } = (await identifyProcess(process.pid)) ?? {};
      const text = await cleanupWithChange(() => {
        const state = { ...JSON.parse(readFileSync(path, 'utf8')), pid: process.pid, started };
        writeFileSync(path, JSON.stringify(state));
      });
      expect(text).toMatch(/Left state file .*: it has been written since/);
      expect(existsSync(path)).toBe(true);
    });
  });
});

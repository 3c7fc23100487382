import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { freePort } from './ports.ts';
import { endProcessesIn, processesIn } from './processes.ts';
import { openRegistry } from './registry.ts';
import { tempDir } from './temp.ts';
import { until, within } from './wait.ts';

describe('temporary directories and processes', () => {
  it('go when they are closed, once and again', async () => {
    const temp = tempDir();
    await writeFile(join(temp.path, 'file'), 'content');
    await temp.close();
    await temp.close();
    expect(existsSync(temp.path)).toBe(false);
  });

  it.each(['SIGKILL', 'SIGTERM'] as const)('go when their owner dies of %s', async (signal) => {
    const here = dirname(fileURLToPath(import.meta.url));
    const script = `
      import { spawn } from 'node:child_process';
      import { tempDir } from './temp.ts';
      const temp = tempDir();
      spawn('sleep', ['600'], { detached: true, stdio: 'ignore', env: { PATH: process.env.PATH, TMPDIR: temp.tmp } });
      console.log(temp.path);
      setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], {
      cwd: here,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [path]: string[] = await within(once(createInterface({ input: owner.stdout }), 'line'), 'the directory');
    if (path === undefined) throw new Error('Expected a path, got nothing');
    await until('the child to run', async () => (await processesIn(join(path, 'tmp'))).length === 1);
    const exited = once(owner, 'exit');
    owner.kill(signal);
    await within(exited, 'the owner to die');
    await until('the directory to go', () => !existsSync(path));
    // A process that was killed is listed until it has gone.
    await until('the child to go', async () => (await processesIn(join(path, 'tmp'))).length === 0);
  });

  it('ends what runs with a folder as its TMPDIR, in whatever group', async () => {
    await using temp = tempDir();
    const child = spawn('sleep', ['600'], {
      detached: true,
      env: { PATH: process.env['PATH'] ?? '', TMPDIR: temp.tmp },
    });
    const exited = once(child, 'exit');
    expect(await processesIn(temp.tmp)).toEqual([child.pid]);
    await endProcessesIn(temp.tmp);
    expect(await within(exited, 'the exit')).toEqual([null, 'SIGKILL']);
  });
});

describe('free ports', () => {
  it('can be listened on and are given once', async () => {
    const ports = await Promise.all(Array.from({ length: 50 }, () => freePort()));
    expect(new Set(ports).size).toBe(50);
    expect(Math.min(...ports)).toBeGreaterThan(10_080);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(ports[0], '127.0.0.1', resolve));
    server.close();
  });
});

describe('a registry directory', () => {
  it('holds registrations as the original writes them, with nothing left of the writing', async () => {
    await using temp = tempDir();
    const registry = await openRegistry(join(temp.path, 'registry'));
    const file = await registry.add({ name: 'laptop', port: 40_001, localPort: 4096, cwd: '/home/user/app' });
    expect(await readdir(registry.path)).toEqual(['laptop.json']);
    const registration: unknown = JSON.parse(await readFile(file, 'utf8'));
    expect(registration).toMatchObject({ name: 'laptop', port: 40_001, localPort: 4096, cwd: '/home/user/app' });
    expect(registration).toHaveProperty('connectedAt', expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/));
    expect(registration).not.toHaveProperty('id');
    await registry.remove('laptop');
    await registry.remove('laptop');
    expect(await readdir(registry.path)).toEqual([]);
  });

  it('keeps passwords in closed files beside them, named by id', async () => {
    await using temp = tempDir();
    const registry = await openRegistry(join(temp.path, 'registry'));
    await registry.add({ name: 'box', port: 40_002, id: 'abc123' }, { password: 'hunter2' });
    const folder = join(registry.path, '.credentials');
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect((await stat(join(folder, 'abc123'))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(folder, 'abc123'), 'utf8')).toBe('hunter2\n');
    await registry.remove('box', 'abc123');
    expect(await readdir(folder)).toEqual([]);
  });
});

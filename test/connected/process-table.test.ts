import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';

import { afterEach, describe, expect, test } from 'vitest';

import { familyOf, identifyProcess, isAlive, listenersOn } from '../../src/connected/process-table.ts';
import { until } from '../rig/wait.ts';

const children: ChildProcess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
});

function start(program: string, ...args: readonly string[]): ChildProcess & { readonly pid: number } {
  const child = spawn(program, args, { stdio: 'ignore' });
  children.push(child);
  return child as ChildProcess & { readonly pid: number };
}

describe('a process', () => {
  test('is identified by pid and start time, and not alive after its end', async () => {
    const child = start('sleep', '600');
    const identity = await until('the process', () => identifyProcess(child.pid));
    expect(identity).toEqual({ pid: child.pid, started: expect.any(String) });
    expect(await isAlive(identity)).toBe(true);
    // Another process with the same pid.
    expect(await isAlive({ ...identity, started: '1' })).toBe(false);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await isAlive(identity)).toBe(false);
    expect(await identifyProcess(child.pid)).toBeUndefined();
  });

  test('has a family of children and grandchildren', async () => {
    const child = start('sh', '-c', 'sh -c "sleep 600; :" & wait');
    await until('three processes', async () => (await familyOf(child.pid)).size === 3);
    const family = await familyOf(child.pid);
    expect(family.has(child.pid)).toBe(true);
    expect(family.has(process.pid)).toBe(false);
    for (const pid of family) if (pid !== child.pid) process.kill(pid, 'SIGKILL');
  });
});

describe('a listener', () => {
  test.each(['127.0.0.1', '0.0.0.0', '::'])('on %s is found by its port', async (host) => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    const address = server.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    expect([...((await listenersOn(port)) ?? [])]).toEqual([process.pid]);
    await new Promise((resolve) => server.close(resolve));
    expect([...((await listenersOn(port)) ?? [])]).toEqual([]);
  });
});

import { describe, expect, test } from 'vitest';

import { PasswordReader } from '../../src/probing/password-reader.ts';
import { candidate } from '../fleet/candidates.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

test('thousands of candidates without a password do not block the event loop', async () => {
  let asked = 0;
  const reader = new PasswordReader({
    clock: new ManualClock(),
    limitMs: 1000,
    resolveCredential: async () => void (asked += 1),
  });
  const all = Promise.all(Array.from({ length: 5000 }, () => reader.find(candidate(), false)));
  const perTurn: number[] = [];
  for (let turn = 0; turn < 50; turn += 1) {
    const before = asked;
    await new Promise((resolve) => setImmediate(resolve));
    perTurn.push(asked - before);
  }
  await all;
  expect(Math.max(...perTurn)).toBeLessThan(1000);
});

test('a read that hangs is given up in time, and not started twice', async () => {
  const clock = new ManualClock();
  let asked = 0;
  const reader = new PasswordReader({
    clock,
    limitMs: 1000,
    resolveCredential: () => {
      asked += 1;
      return new Promise(() => {});
    },
  });
  const hung = candidate();
  const problem = { problem: 'timed out after 1000 ms reading its password' };
  for (const urgent of [false, true]) {
    const finding = reader.find(hung, urgent);
    await clock.advance(1000);
    expect(await finding).toEqual(problem);
  }
  expect([asked, clock.due()]).toEqual([1, 0]);
});

test('a finished read leaves no timer', async () => {
  const clock = new ManualClock();
  const reader = new PasswordReader({ clock, limitMs: 1000, resolveCredential: async () => undefined });
  expect(await Promise.all([reader.find(candidate(), false), reader.find(candidate(), true)])).toEqual([{}, {}]);
  expect(clock.due()).toBe(0);
});

test('at most 64 files are read at once, and urgent ones skip the queue', async () => {
  let asked = 0;
  const reader = new PasswordReader({
    clock: new ManualClock(),
    limitMs: 1000,
    resolveCredential: () => {
      asked += 1;
      return new Promise(() => {});
    },
  });
  for (let count = 0; count < 100; count += 1) void reader.find(candidate(), false);
  await new Promise((resolve) => setImmediate(resolve));
  expect(asked).toBe(64);
  void reader.find(candidate(), true);
  expect(asked).toBe(65);
});

describe('headers that are secrets', () => {
  const one = candidate({ key: 'one', headers: { 'X-Token': { kind: 'unset', variable: 'TOKEN' } } });

  test('lock the endpoint if they cannot be read', async () => {
    const reader = new PasswordReader({
      clock: new ManualClock(),
      limitMs: 1000,
      resolveCredential: async () => ({ username: 'u', password: 'p' }),
      withHeaders: async () => await Promise.reject(new Error('header X-Token: it is not set')),
    });
    expect(await reader.find(one, true)).toEqual({ lock: 'header X-Token: it is not set' });
  });

  test('are used with and without a password', async () => {
    const endpoint = { ...one.endpoint, headers: { 'X-Token': 't' } };
    const deps = { clock: new ManualClock(), limitMs: 1000, withHeaders: async () => endpoint };
    const credential = { username: 'u', password: 'p' };
    const reader = new PasswordReader({ ...deps, resolveCredential: async () => credential });
    expect(await reader.find(one, true)).toEqual({ endpoint, credential });
    const without = new PasswordReader({
      ...deps,
      resolveCredential: async () => await Promise.reject(new Error('no such file')),
    });
    expect(await without.find(one, true)).toEqual({ endpoint, problem: 'no such file' });
  });

  test('lock the endpoint if they take too long', async () => {
    const clock = new ManualClock();
    const reader = new PasswordReader({
      clock,
      limitMs: 1000,
      resolveCredential: async () => undefined,
      withHeaders: () => new Promise(() => {}),
    });
    const found = reader.find(one, true);
    await clock.advance(1000);
    expect(await found).toEqual({ lock: 'timed out after 1000 ms reading its headers' });
  });
});

import { describe, expect, test } from 'vitest';

import { PasswordReader } from '../../src/probing/password-reader.ts';
import { candidate } from '../fleet/candidates.ts';
import { ManualClock } from '../fleet/manual-clock.ts';

function readerWith(deps: Partial<ConstructorParameters<typeof PasswordReader>[0]>) {
  const clock = new ManualClock();
  const reader = new PasswordReader({ clock, limitMs: 1000, resolveCredential: async () => undefined, ...deps });
  return { clock, reader };
}

/** A reader whose every read hangs, and the number of reads that it has started. */
function hangingReader() {
  const reads = { count: 0 };
  const resolveCredential = (): Promise<never> => {
    reads.count += 1;
    return new Promise(() => {});
  };
  return { ...readerWith({ resolveCredential }), reads };
}

test('thousands of candidates without a password do not block the event loop', async () => {
  let reads = 0;
  const { reader } = readerWith({ resolveCredential: async () => void (reads += 1) });
  const all = Promise.all(Array.from({ length: 5000 }, () => reader.find(candidate(), false)));
  const perTurn: number[] = [];
  for (let turn = 0; turn < 50; turn += 1) {
    const before = reads;
    await new Promise((resolve) => setImmediate(resolve));
    perTurn.push(reads - before);
  }
  await all;
  expect(Math.max(...perTurn)).toBeLessThan(1000);
});

test('a read that hangs times out, and is not started twice', async () => {
  const { clock, reader, reads } = hangingReader();
  const hung = candidate();
  for (const urgent of [false, true]) {
    const finding = reader.find(hung, urgent);
    await clock.advance(1000);
    expect(await finding).toEqual({ problem: 'timed out after 1000 ms reading its password' });
  }
  expect([reads.count, clock.due()]).toEqual([1, 0]);
});

test('a finished read leaves no timer', async () => {
  const { clock, reader } = readerWith({});
  expect(await Promise.all([reader.find(candidate(), false), reader.find(candidate(), true)])).toEqual([{}, {}]);
  expect(clock.due()).toBe(0);
});

test('at most 64 passwords are read at the same time, and urgent reads skip the queue', async () => {
  const { reader, reads } = hangingReader();
  for (let count = 0; count < 100; count += 1) void reader.find(candidate(), false);
  await new Promise((resolve) => setImmediate(resolve));
  expect(reads.count).toBe(64);
  void reader.find(candidate(), true);
  expect(reads.count).toBe(65);
});

describe('secret headers', () => {
  const guarded = candidate({ key: 'guarded', headers: { 'X-Token': { kind: 'unset', variable: 'TOKEN' } } });
  const endpoint = { ...guarded.endpoint, headers: { 'X-Token': 't' } };
  const credential = { username: 'u', password: 'p' };

  test('are used with and without a password', async () => {
    const withHeaders = async () => endpoint;
    const { reader } = readerWith({ withHeaders, resolveCredential: async () => credential });
    expect(await reader.find(guarded, true)).toEqual({ endpoint, credential });
    const unreadable = () => Promise.reject(new Error('no such file'));
    const { reader: readerWithoutPassword } = readerWith({ withHeaders, resolveCredential: unreadable });
    expect(await readerWithoutPassword.find(guarded, true)).toEqual({ endpoint, problem: 'no such file' });
  });

  test.each([
    [
      'cannot be read',
      () => Promise.reject(new Error('header X-Token: it is not set')),
      'header X-Token: it is not set',
    ],
    ['take too long', () => new Promise<never>(() => {}), 'timed out after 1000 ms reading its headers'],
  ])('lock the endpoint if they %s', async (_, withHeaders, lock) => {
    const { clock, reader } = readerWith({ withHeaders, resolveCredential: async () => credential });
    const found = reader.find(guarded, true);
    await clock.advance(1000);
    expect(await found).toEqual({ lock });
  });
});

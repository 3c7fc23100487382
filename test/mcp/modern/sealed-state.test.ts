import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { digestOf, StateSealer } from '../../../src/mcp/modern/sealed-state.ts';
import { tempDir } from '../../rig/temp.ts';

const STATE = { call: 'a', question: 'b', askedAtMs: 1, requestId: 'c' };

test('a sealer opens only states sealed with its own key', () => {
  const [one, other] = [new StateSealer(Buffer.alloc(32, 1)), new StateSealer(Buffer.alloc(32, 2))];
  expect(one.open(one.seal(STATE))).toEqual(STATE);
  expect(other.open(one.seal(STATE))).toBe(undefined);
});

test('a sealer rejects a state with any character changed', () => {
  const sealer = new StateSealer(Buffer.alloc(32, 1));
  const sealed = sealer.seal(STATE);
  for (let at = 0; at < sealed.length; at += 1)
    for (const other of ['A', 'B', '.', '='])
      if (sealed[at] !== other) expect(sealer.open(sealed.slice(0, at) + other + sealed.slice(at + 1))).toBe(undefined);
});

test('sealers opened at the same time share one key', async () => {
  const temp = tempDir('sealed');
  const folder = join(temp.path, 'state');
  const sealers = await Promise.all([1, 2, 3, 4].map(() => StateSealer.open(folder)));
  expect(new Set(sealers.map((one) => one.seal(STATE))).size).toBe(1);
  await temp.close();
});

test('open() rejects a damaged key file', async () => {
  const temp = tempDir('sealed');
  await mkdir(join(temp.path, 'state'));
  await writeFile(join(temp.path, 'state/question.key'), 'short');
  await expect(StateSealer.open(join(temp.path, 'state'))).rejects.toThrow(/damaged; remove it/);
  await temp.close();
});

test('a digest depends on the order of array items, but not on the order of object keys', () => {
  expect(digestOf({ a: 1, b: [{ c: 2, d: 3 }] })).toBe(digestOf({ b: [{ d: 3, c: 2 }], a: 1 }));
  expect(digestOf({ a: 1 })).not.toBe(digestOf([['a', 1]]));
  expect(digestOf(['a', 'b'])).not.toBe(digestOf(['b', 'a']));
});

import { execFileSync } from 'node:child_process';
import type { TestContext } from 'vitest';

import { skipFor } from '../rig/needed.ts';

/**
 * Call first in a test that changes owners or mounts. Skips the test without root;
 * in CI, which has root, that is a failure.
 */
export function needRoot(context: TestContext): void {
  const isRoot = process.platform === 'linux' && process.getuid?.() === 0;
  skipFor(context, isRoot ? undefined : 'needs root on Linux, to give files to other users and to mount');
}

/** Runs `work` as another user. */
export async function asUser<T>(uid: number, work: () => Promise<T>): Promise<T> {
  process.seteuid?.(uid);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

/** Runs a program and returns its output. */
export function run(program: string, ...argv: readonly string[]): string {
  return execFileSync(program, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

import { execFileSync } from 'node:child_process';
import type { TestContext } from 'vitest';

import { skipFor } from '../rig/needed.ts';

/** First line of a test that gives files to other users or mounts. */
export function needRoot(context: TestContext): void {
  const isRoot = process.platform === 'linux' && process.getuid?.() === 0;
  skipFor(context, isRoot ? undefined : 'needs root on Linux, to give files to other users and to mount');
}

/** Runs `work` with the rights of another user, for what root's own rights would hide. */
export async function asUser<T>(uid: number, work: () => Promise<T>): Promise<T> {
  process.seteuid?.(uid);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

/** Runs a program of the system to its end and gives what it printed. */
export function run(program: string, ...argv: readonly string[]): string {
  return execFileSync(program, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

import { it } from 'vitest';

/**
 * A test that gives files to other users or mounts. Without root it is skipped and says so; in CI,
 * which has root, that is a failure.
 */
export function itAsRoot(name: string, body: () => Promise<void>): void {
  if (process.platform === 'linux' && process.getuid?.() === 0) {
    it(name, body);
  } else if (process.env['CI'] === 'true') {
    it(name, () => {
      throw new Error('Expected to run as root on Linux, because CI=true');
    });
  } else {
    it.skip(`${name} (skipped: needs root on Linux)`, body);
  }
}

/** Runs `work` with the rights of another user, for what root's own rights would hide. */
export async function asUser<T>(uid: number, work: () => Promise<T>): Promise<T> {
  process.seteuid!(uid);
  try {
    return await work();
  } finally {
    process.seteuid!(0);
  }
}

import { defineConfig } from 'vitest/config';

/** `npm run test:tailnet`. Each file has a tailnet of its own. */
export default defineConfig({
  test: {
    include: ['test/tailnet/**/*.test.ts'],
    maxWorkers: 2,
    // Bounds on hangs, never a measure: the machine may be slow.
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});

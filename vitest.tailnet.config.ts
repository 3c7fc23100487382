import { defineConfig } from 'vitest/config';

/** `npm run test:tailnet`. One file at a time: each has a tailnet of its own. */
export default defineConfig({
  test: { include: ['test/tailnet/**/*.test.ts'], maxWorkers: 1, testTimeout: 120_000, hookTimeout: 180_000 },
});

import { defineConfig } from 'vitest/config';

/** `npm run test:connected`: opencode-connected is being built; until something uses it, its suites run on their own. */
export default defineConfig({
  test: { include: ['test/connected/**/*.test.ts'], maxWorkers: 2, testTimeout: 120_000, hookTimeout: 180_000 },
});

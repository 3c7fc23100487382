import { configDefaults, defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // `npm run test:tailnet`: takes programs that are ten minutes in the making.
    exclude: [...configDefaults.exclude, 'test/tailnet/**'],
    // Two cores, and a real opencode takes 320 MB and most of a core while it starts.
    maxWorkers: 2,
    // Bounds on hangs, never a measure: the machine may be slow.
    testTimeout: 240_000,
    hookTimeout: 180_000,
  },
});

import { relative } from 'node:path';

import { configDefaults, defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Slow suites, in the order in which they start: the first waits for more than a minute on any machine. All others take seconds. */
const SLOW = [
  /^test\/real\/long-turn\./,
  /^test\/(?:real|soak|connected\/(?:relay|service|start)|doctor)\/|^test\/install\./,
];

/** So that a run ends with short files on every worker, not with a long one on one. Among equals the larger file goes first. */
class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const path = relative(this.ctx.config.root, moduleId);
      const found = SLOW.findIndex((pattern) => pattern.test(path));
      return found < 0 ? SLOW.length : found;
    };
    return (await super.sort(files)).toSorted((one, other) => rank(one) - rank(other));
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    sequence: { sequencer: SlowestFirst },
    // `npm run test:tailnet` runs it, with programs that take ten minutes to build.
    exclude: [...configDefaults.exclude, 'test/tailnet/**'],
    // For two cores: tests mostly wait for programs. More files at once slow down the starts of real opencodes (320 MB and a core each).
    maxWorkers: 4,
    // Bounds on hangs, never a measure: the machine may be slow.
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});

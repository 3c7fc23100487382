import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { isMissing } from '../../rig/opencode/opencode-binaries.ts';
import { tempDir, type TempDir } from '../../rig/temp.ts';
import { NEWEST_NODE } from '../raw-server.ts';
import { startBridge } from './bridge.ts';
import { SCENARIOS, type Subject } from './expected-failures.ts';
import { buildFixtureServer } from './fixture-server.ts';

const component = (path: string): string =>
  fileURLToPath(new URL(`../../components/node_modules/${path}`, import.meta.url));
const SUITE = component('@modelcontextprotocol/conformance/dist/index.js');
/** CI runs some scenarios; `npm run conformance` runs all. */
const CHOSEN_SCENARIOS = SCENARIOS.filter(({ inCi }) => inCi === true || process.env['CONFORMANCE'] === 'full').map(
  (scenario) => ({ version: '2026-07-28', ...scenario }),
);

interface Check {
  readonly id: string;
  readonly status: string;
  readonly errorMessage?: string;
}

// The suite runs only once, since the server behaves the same on the newest Node.
describe.skipIf([SUITE, NEWEST_NODE].some(isMissing) || process.execPath === NEWEST_NODE)(
  'the official conformance suite',
  () => {
    let temp: TempDir;
    const bridges = new Map<Subject, Awaited<ReturnType<typeof startBridge>>>();

    beforeAll(async () => {
      temp = tempDir('conformance');
      bridges.set('product', await startBridge({}));
      bridges.set('fixtures', await startBridge({ script: await buildFixtureServer(temp.path) }));
    });
    afterAll(async () => {
      for (const bridge of bridges.values()) await bridge[Symbol.asyncDispose]();
      await temp.close();
    });

    test.concurrent.each(CHOSEN_SCENARIOS)('$name of $version', async ({ name, version, subject, fails = {} }) => {
      const folder = join(temp.path, `${name}-${version}`);
      await mkdir(folder);
      const args = ['server', '--url', bridges.get(subject)?.url ?? '', '--scenario', name, '--spec-version', version];
      const output = await new Promise<string>((resolve) => {
        const options = { cwd: folder, env: { PATH: '', HOME: temp.path }, timeout: 120_000 };
        execFile(NEWEST_NODE, [SUITE, ...args, '--force', '-o', 'results'], options, (_, out, err) =>
          resolve(out + err),
        );
      });
      const [results = ''] = await readdir(join(folder, 'results')).catch(() => []);
      const text = await readFile(join(folder, 'results', results, 'checks.json'), 'utf8').catch(() => `[] ${output}`);
      const checks = JSON.parse(text) as readonly Check[];
      expect(checks.length).toBeGreaterThan(0);
      const failed = checks.filter(({ status }) => status === 'FAILURE');
      const unexpected = failed.filter(({ id }) => !(id in fails));
      expect(unexpected.map(({ id, errorMessage }) => `${id}: ${errorMessage}`)).toEqual([]);
      // An expected failure that passes is stale.
      expect([...new Set(failed.map(({ id }) => id))].toSorted()).toEqual(Object.keys(fails).toSorted());
    });
  },
);

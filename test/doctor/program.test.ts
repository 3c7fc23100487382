import { writeFile } from 'node:fs/promises';

import { expect, test } from 'vitest';

import { programChecks } from '../../src/doctor/program.ts';
import { tempDir } from '../rig/temp.ts';

test('programChecks() shows the opencode that would be started, and reports a missing opencode as no fault', async () => {
  await using temp = tempDir('doctor-program');
  const checkOf = (env: NodeJS.ProcessEnv): unknown =>
    programChecks({
      place: { home: temp.path, platform: 'linux', env },
      execPath: process.execPath,
      script: `${temp.path}/opencode-mcp.js`,
      nodeVersion: process.version,
      problems: [],
      warnings: [],
      configFile: undefined,
    }).find(({ subject }) => subject === 'opencode');
  const missing = { verdict: '-', text: expect.stringMatching(/^there is no opencode on the PATH; .*npm install/) };
  expect(checkOf({ PATH: temp.path })).toMatchObject(missing);
  const path = `${temp.path}/opencode`;
  await writeFile(path, '', { mode: 0o755 });
  expect(checkOf({ PATH: temp.path })).toMatchObject({ verdict: 'ok', text: path });
  expect(checkOf({ PATH: '', OPENCODE_BIN: path })).toMatchObject({ verdict: 'ok', text: path });
  expect(checkOf({ PATH: temp.path, OPENCODE_BIN: '/no/such' })).toMatchObject({
    verdict: '-',
    text: expect.stringMatching(/^there is no \/no\/such; /),
  });
});

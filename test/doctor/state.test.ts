import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { stateChecks } from '../../src/doctor/state.ts';
import { tempDir } from '../rig/temp.ts';

test('the advice for a file in place of a parent folder moves the file away', async () => {
  await using home = tempDir();
  await writeFile(join(home.path, '.local'), '');
  const stateDir = join(home.path, '.local', 'state', 'opencode-mcp');
  const [found] = await stateChecks(stateDir);
  expect(found).toMatchObject({ verdict: 'broken', text: expect.stringContaining('.local is no folder') as unknown });
  execFileSync('sh', ['-c', found?.advice?.command ?? 'false']);
  expect((await stateChecks(stateDir)).map(({ verdict }) => verdict)).toEqual(['ok']);
});

test('a device in place of a folder is not moved', async () => {
  const [found] = await stateChecks('/dev/null/.local/state/opencode-mcp');
  expect(found?.verdict).toBe('broken');
  expect(found?.advice).toEqual({ text: expect.stringContaining('set HOME') as unknown });
});

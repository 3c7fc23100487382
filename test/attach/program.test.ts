import { mkdir, realpath, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { isDirect } from '../../src/attach/direct.ts';
import { checkDirectory, findProgram, launchFor } from '../../src/attach/program.ts';
import { tempDir } from '../rig/temp.ts';

async function openFolder(): Promise<string> {
  const temp = tempDir('opencode-mcp-attach');
  onTestFinished(() => temp.close());
  return await realpath(temp.path);
}

/** A PATH with OpenCode 1, OpenCode 2 and the preview. */
async function openProgramPath(): Promise<string> {
  const path = await openFolder();
  const versions = { opencode: '1.18.33', second: 'opencode v2.1.2', lildax: 'lildax vlocal' };
  for (const [name, version] of Object.entries(versions))
    await writeFile(join(path, name), `#!/bin/sh\necho '${version}'\n`, { mode: 0o755 });
  return path;
}

test.each([
  ['opencode-1', 'opencode', 'opencode'],
  ['opencode-2', 'second', 'second'],
  // It has its own default name, so OPENCODE_BIN is not needed.
  ['opencode-2-preview', 'opencode', 'lildax'],
] as const)('findProgram for %s with OPENCODE_BIN=%s finds %s', async (dialect, bin, found) => {
  const path = await openProgramPath();
  expect(await findProgram(dialect, bin, { PATH: path })).toBe(join(path, found));
});

test.each([
  ['opencode-2', 'opencode', 'the instance is OpenCode 2, but DIR/opencode is OpenCode 1 (1.18.33), whose terminal'],
  ['opencode-1', 'second', 'the instance is OpenCode 1, but DIR/second is OpenCode 2 (2.1.2), whose terminal'],
  ['opencode-2', 'lildax', 'the instance is OpenCode 2, but DIR/lildax is the preview of OpenCode 2, whose terminal'],
  ['opencode-2-preview', 'second', 'the instance is the preview of OpenCode 2, but DIR/second is OpenCode 2 (2.1.2)'],
  ['opencode-1', 'missing', 'there is no missing on PATH; install it'],
] as const)('findProgram for %s with OPENCODE_BIN=%s fails with the reason', async (dialect, bin, message) => {
  const path = await openProgramPath();
  await expect(findProgram(dialect, bin, { PATH: path })).rejects.toThrow(message.replace('DIR', path));
});

test("launchFor passes the password in the environment, and replaces another server's password", () => {
  const env = {
    HOME: '/home/ada',
    OPENCODE_SERVER_PASSWORD: 'of another server',
    OPENCODE_SERVER_USERNAME: 'ada',
    OPENCODE_PASSWORD: 'of another server',
  };
  const target = { url: 'http://127.0.0.1:1', password: 'random', directory: '/w', session: 'ses_1' };
  expect(launchFor({ ...target, dialect: 'opencode-1' }, env)).toEqual({
    args: ['attach', 'http://127.0.0.1:1', '--dir', '/w', '--session', 'ses_1'],
    env: { HOME: '/home/ada', OPENCODE_SERVER_PASSWORD: 'random', OPENCODE_PASSWORD: 'of another server' },
  });
  expect(launchFor({ ...target, dialect: 'opencode-2' }, env)).toEqual({
    args: ['/w', '--server', 'http://127.0.0.1:1', '--session', 'ses_1'],
    env: { HOME: '/home/ada', OPENCODE_PASSWORD: 'random' },
  });
});

test('checkDirectory rejects a symlink on this machine, since opencode would send its target', async () => {
  const path = await openFolder();
  await mkdir(join(path, 'real'));
  await symlink(join(path, 'real'), join(path, 'link'));
  await checkDirectory(join(path, 'real'));
  await checkDirectory(join(path, 'not here'));
  await expect(checkDirectory(join(path, 'link'))).rejects.toThrow('Nothing was started');
});

test('only a bare loopback URL is used directly', () => {
  const endpoint = { url: 'http://127.0.0.1:4096', route: 'loopback' } as const;
  expect(isDirect({ endpoint })).toBe(true);
  const others = [
    { endpoint, credential: { username: 'opencode', password: 'x' } },
    { endpoint: { ...endpoint, url: 'http://192.168.1.2:4096' } },
    { endpoint: { ...endpoint, url: 'https://127.0.0.1:4096' } },
    { endpoint: { ...endpoint, url: 'http://127.0.0.1:4096/opencode-mcp/v1/i/a' } },
    { endpoint: { ...endpoint, headers: { a: 'b' } } },
    { endpoint: { ...endpoint, holderPid: 1 } },
    { endpoint: { ...endpoint, dial: () => Promise.reject(new Error('not dialled')) } },
  ];
  expect(others.map(isDirect)).toEqual(others.map(() => false));
});

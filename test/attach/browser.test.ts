import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { openBrowser, openers } from '../../src/attach/browser.ts';
import { tempDir } from '../rig/temp.ts';

test.each([
  ['darwin', {}, '24.0.0', ['open']],
  ['linux', { DISPLAY: ':0' }, '6.1.0', ['xdg-open']],
  ['linux', { WAYLAND_DISPLAY: 'wayland-0' }, '6.1.0', ['xdg-open']],
  ['linux', {}, '5.15.167.4-microsoft-standard-WSL2', ['wslview', 'xdg-open']],
  // Over SSH, xdg-open would start a text browser.
  ['linux', {}, '6.1.0', []],
] as const)('on %s with the environment %j and kernel %s, openers() returns %j', (platform, env, kernel, expected) => {
  expect(openers({ platform, env, kernel })).toEqual(expected);
});

test.each([
  ['succeeds', 0, true],
  ['fails', 3, false],
])('openBrowser() passes the URL to the opener unchanged and reports whether it %s', async (_, code, expected) => {
  const temp = tempDir('opencode-mcp-browser');
  onTestFinished(() => temp.close());
  const argsFile = join(temp.path, 'args');
  await writeFile(join(temp.path, 'xdg-open'), `#!/bin/sh\necho "$*" > '${argsFile}'\nexit ${code}\n`, { mode: 0o755 });
  const url = 'http://a.localhost:1/$(x)?a&b';
  const env = { PATH: `${temp.path}:/usr/bin:/bin`, DISPLAY: ':0' };
  expect(await openBrowser(url, { platform: 'linux', env, kernel: '6.1.0' })).toBe(expected);
  expect(await readFile(argsFile, 'utf8')).toBe(`${url}\n`);
});

test('openBrowser() returns false if no opener is on the PATH', async () => {
  const env = { PATH: '/nowhere', DISPLAY: ':0' };
  expect(await openBrowser('http://a.localhost:1/', { platform: 'linux', env, kernel: '6.1.0' })).toBe(false);
});
